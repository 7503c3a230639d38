"""Embeddings -> prototypes: the centres of clusters on the unit sphere, and a bias by which they are used evenly.

Shapes: N crops, K prototypes, D numbers of an embedding.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from slg_wds.arrays import F32, F64
from slg_wds.banks import DenseLayer
from slg_wds.console import counted
from slg_wds.errors import MissingDependencyError, UsageError

PASSES = 10  # over the sample
BATCH = 4096  # crops that move the centres at once
ITERATIONS = 10  # of Sinkhorn-Knopp
ROWS = 1 << 24  # numbers of a block of scores
LEAST_SHARE = 1e-300  # stands for a use of 0 in a logarithm


def check_installed() -> None:
    """Raise MissingDependencyError unless scikit-learn can be imported."""
    if find_spec("sklearn") is None:
        raise MissingDependencyError(
            "prototypes need scikit-learn, which is not installed", hint="pip install 'slg-wds[embeddings]'"
        )


def unit_vectors(vectors: F32) -> F32:
    """Divide rows by their length, and leave out those of zeros, which have no direction."""
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact * exact).sum(axis=1))
    kept = lengths > 0
    unit: F32 = (exact[kept] / lengths[kept, None]).astype(np.float32)
    return unit


def centres(unit: F32, count: int, seed: int) -> F32:
    """Return the centres of clusters of unit vectors, divided by their length: k-means on the sphere.

    scikit-learn's MiniBatchKMeans (Sculley, "Web-scale k-means clustering", 2010) from centres that k-means++ chose,
    always PASSES times over the sample.

    Args:
        unit: float32 [N, D].
        count: of clusters, K.
        seed: of the first centres and of the batches.

    Returns:
        float32 [K, D].

    Raises:
        UsageError: there are fewer vectors than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(unit) < count:
        raise UsageError(
            f"{counted(len(unit), 'crop')} that are not zeros cannot make {count:,} prototypes",
            hint="give a smaller -k, more --samples, or a set of more crops",
        )
    means = MiniBatchKMeans(
        count,
        max_iter=PASSES,
        batch_size=BATCH,
        random_state=seed % 2**32,
        n_init=1,
        tol=0.0,
        max_no_improvement=None,
        compute_labels=False,
    ).fit(unit)
    found = means.cluster_centers_.astype(np.float64)
    lengths = np.sqrt((found * found).sum(axis=1, keepdims=True))
    prototypes: F32 = (found / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return prototypes


def even_bias(unit: F32, prototypes: F32, temperature: float) -> F32:
    """Return the bias by which the prototypes share the vectors evenly.

    These are ITERATIONS of Sinkhorn-Knopp (Cuturi, arXiv:1306.0895) on exp(scores / temperature), by which SwAV
    (arXiv:2006.09882), DINOv2 and DINOv3 spread a batch over their prototypes. There the result is used for that batch
    alone. Here the factors of the prototypes are kept, as a bias, and so become a function of a single crop.

    Args:
        unit: float32 [N, D].
        prototypes: float32 [K, D].
        temperature: of the softmax.

    Returns:
        float32 [K], with a mean of 0.
    """
    bias = np.zeros(len(prototypes))
    for _ in range(ITERATIONS):
        used = mean_use(unit, DenseLayer(prototypes, bias.astype(np.float32)), temperature)
        bias -= temperature * np.log(np.maximum(used, LEAST_SHARE) * len(bias))
        bias -= bias.mean()
    return bias.astype(np.float32)


def mean_use(unit: F32, prototypes: DenseLayer, temperature: float) -> F64:
    """Return the mean over the vectors of softmax((W z + b) / temperature), float64 [K]."""
    total = np.zeros(prototypes.outputs)
    rows = max(1, ROWS // prototypes.outputs)
    bias = 0.0 if prototypes.bias is None else prototypes.bias
    for first in range(0, len(unit), rows):
        scores = (unit[first : first + rows] @ prototypes.weight.T + bias).astype(np.float64) / temperature
        scores -= scores.max(axis=1, keepdims=True)
        shares = np.exp(scores)
        total += (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0)
    mean: F64 = total / len(unit)
    return mean


def effective_number(used: F64) -> float:
    """Return exp(entropy) of shares that sum to 1: how many prototypes are in use, 1 to K."""
    shares = used[used > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))
