"""Distributions of an image's crops -> low-rank labels to a stated error.

Enters: probabilities [M, C] and the mean KL divergence that is allowed, in nats. Leaves: the integers of
`slg_wds.format.records.low_rank`, and the divergence that was measured on what a reader decodes. May import format and
errors.

The table of an image's log-probabilities is close to low rank, because its crops are views of one thing. `classes`
says what it costs to keep only some classes, `decomposition` finds components, `choice` foretells from these which
number of classes, rank and step take the fewest bits, `fitting` makes of them a mean, a basis and coefficients
(`tables`), `attempts` lists what is tried, `rounding` makes integers, `steps` searches the largest step that keeps to
the target, and `encoding` puts these together and gives crops that are unlike the others blocks of their own.

All is done in float64 and in a fixed order, so the bytes of labels depend on nothing but the probabilities, the
software and the kind of machine. For products of matrices that holds only with one thread: see
`slg_wds.concurrency.threads.one_blas_thread`.
"""

from slg_wds.labels.low_rank.encoding import encode

__all__ = ["encode"]
