"""Accuracy of a linear classifier on embeddings that stay as they are.

It is multinomial logistic regression by L-BFGS, whose strength of regularisation is chosen on images kept from the fit,
as CLIP's linear probes are (Radford et al. 2021, arXiv 2103.00020, appendix A.3).

Shapes: N images of train, Q of val, D numbers of an embedding.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import NoTargetsError

STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C, the inverse of the regularisation, for numbers of deviation 1
USUAL = 1.0  # where classes have too few images to choose
KEPT = 0.2  # share of the images of train on which C is chosen
STEPS = 1000


class Probe(NamedTuple):
    """A probe's result.

    Attributes:
        top1: accuracy, 0..1.
        strength: the C that was chosen.
    """

    top1: float
    strength: float


def linear_probe(
    embeddings: NDArray[Any], classes: NDArray[Any], queries: NDArray[Any], targets: NDArray[Any]
) -> Probe:
    """Fit a linear classifier, and test it. The same input gives the same result.

    Args:
        embeddings: of the images of train, float32 [N, D]; each number is brought to mean 0 and deviation 1.
        classes: of these, int64 [N].
        queries: embeddings of the images of val, float32 [Q, D].
        targets: classes of these, int64 [Q].

    Raises:
        NoTargetsError: all images of train are of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    counts = np.unique(classes, return_counts=True)[1]
    if len(counts) < 2:
        raise NoTargetsError("the images of train are all of one class", hint="a linear probe needs two")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=USUAL, max_iter=STEPS))
    if counts.min() > 1 and KEPT * len(classes) >= len(counts):
        grid = {"logisticregression__C": STRENGTHS}
        model = GridSearchCV(model, grid, cv=StratifiedShuffleSplit(1, test_size=KEPT, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that takes more than STEPS steps is near its optimum
        model.fit(embeddings, classes)
    chosen = getattr(model, "best_params_", {"logisticregression__C": USUAL})
    return Probe(float(model.score(queries, targets)), float(chosen["logisticregression__C"]))
