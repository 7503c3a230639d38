"""The largest step with which the mean cosine is the one that was asked for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slg_wds.labels.low_rank_embeddings.decomposition import DirectionComponents
from slg_wds.labels.low_rank_embeddings.rounding import MAX_CODE, RoundedDirections, kept, rounded, step_of

ROUNDING = 0.85  # of d^2 / 12 a number: coefficients make up for a part
NEAR = 0.98  # of the allowed 1 - cosine: no larger step is sought
AIM = 0.99  # of it: what a trial aims at
TRIALS = 6  # after so many, a step that does is taken even if a larger one might do


def largest_step(found: DirectionComponents, allowed: float) -> tuple[int, RoundedDirections]:
    """Return the code of the largest step with which the mean of 1 - cosine is allowed, and its integers.

    What is lost is foretold for every step. Each trial tells how far off that is, and so which step to try next.
    """
    foretold = _foretold(found)
    fine, coarse, best = MAX_CODE + 1, -1, None
    code, trials = _first(foretold, allowed), 0
    while True:
        trial, trials = rounded(found, code), trials + 1
        lost = trial.mean_lost
        if lost <= allowed or code == MAX_CODE:
            best, fine = trial, code
        else:
            coarse = code
        if best is not None and (fine - coarse == 1 or NEAR * allowed <= lost <= allowed or trials >= TRIALS):
            return fine, best
        code = _first(foretold * (lost / max(float(foretold[code]), 1e-300)), AIM * allowed)
        code = min(max(code, coarse + 1), fine - 1) if trials < TRIALS else (coarse + fine) // 2


def _first(foretold: NDArray[np.float64], allowed: float) -> int:
    """Return the code of the largest step of which no more than is allowed is foretold; the finest if there is none."""
    return int(np.argmax(foretold <= allowed)) if foretold[-1] <= allowed else MAX_CODE


def _foretold(found: DirectionComponents) -> NDArray[np.float64]:
    """Return what is lost on average with the step of every code: what is dropped, and what rounding costs."""
    crops, dim = found.directions.shape
    steps = step_of(np.arange(MAX_CODE + 1))
    ranks = kept(found, steps)
    squares = np.square(found.norms, dtype=np.float64)
    dropped = np.maximum(squares.sum() - np.concatenate([[0.0], np.cumsum(squares)]), 0.0)[ranks]
    rounding = ROUNDING * (ranks * (crops + dim) + dim) * steps**2 / 12.0
    lost: NDArray[np.float64] = (dropped + rounding) / (2.0 * max(crops, 1))
    return lost
