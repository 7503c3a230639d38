"""Embeddings of an image's crops -> low-rank embeddings to a stated mean cosine, and no crop far below it.

Enters: embeddings [M, D] and the mean cosine that is asked for. Leaves: the integers of
`slg_wds.format.records.embeddings.low_rank`, and the cosines that were measured on what a reader decodes. May import
format and errors.

The crops of one image are views of one thing, so the table of their embeddings is close to low rank. Directions alone
are coded, since only they change the cosine; lengths are stored beside them. Of crops with the directions u = x / |x|,
1 - cosine is half the squared distance, which a singular value decomposition makes smallest (`decomposition`). Every
number is rounded with such a step that its error costs as much as that of any other, d^2 / 12 (`rounding`). So
coefficients have the step d, and a component of the basis the step d / (the norm of its coefficients). Then d alone
decides the rank and all steps, and the largest d is sought whose cosine is the target (`steps`). Crops that are too far
off then get components of their own (`encoding`).

All is done in a fixed order, so the bytes depend on nothing but the embeddings, the software and the kind of machine.
For products of matrices that holds only with one thread: see `slg_wds.concurrency.threads.one_blas_thread`.

Shapes: M crops of an image, m crops of a block, D numbers, R components that exist, r that are kept.
"""

from slg_wds.labels.low_rank_embeddings.encoding import encode_embedding

__all__ = ["encode_embedding"]
