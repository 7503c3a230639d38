"""The largest step of the coefficients with which a table's integers keep to limits of the divergence."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from slg_wds.arrays import F64, Bools
from slg_wds.format.records.low_rank.blocks import LARGEST_STEP, MAX_STEP_CODE, STEPS_AN_OCTAVE
from slg_wds.labels.low_rank.fitting import Fitted
from slg_wds.labels.low_rank.rounding import Rounded, rounded

MOST_OCTAVES = 1.0  # of the step, that a search goes at once
ROUNDED_UP = 0.6  # of a code: a step that is foretold to miss the limits by so little is tried


@dataclass(frozen=True)
class Limits:
    """What the KL of crops may be, in nats: their mean, and the largest."""

    mean: float
    worst: float

    def reached(self, divergence: F64) -> float:
        """Return the part of the limits that these divergences take, float64 [m]: over 1, they are broken."""
        return float(max(divergence.mean() / self.mean, divergence.max() / self.worst))


@dataclass(frozen=True, eq=False)
class Trial:
    """A table of m crops, and its integers with some step."""

    fitted: Fitted
    found: Rounded

    def of(self, crops: Bools) -> Trial:
        """Return some of the crops, bool [m]."""
        return Trial(self.fitted.of(crops), self.found.of(crops))


def largest_step(fitted: Fitted, step: float, limits: Limits) -> Trial | None:
    """Return the integers of the largest step within the limits, None where there is none. `step` is tried first."""
    return _larger(Trial(fitted, rounded(fitted, _code(step))), limits)


def coarser(trial: Trial, limits: Limits) -> Trial:
    """Return the integers of a larger step that is still within the limits; if there is none, what was given."""
    return _larger(trial, limits) or trial


def _larger(trial: Trial, limits: Limits) -> Trial | None:
    """Search from a trial on, until the next larger step is known or foretold to break the limits."""
    best, fine, coarse = None, MAX_STEP_CODE + 1, -1  # codes up to `coarse` are too large a step
    floor = limits.reached(trial.fitted.divergence)
    for guess in itertools.count():
        code, reached = trial.found.block.step_code, limits.reached(trial.found.divergence)
        if reached <= 1:
            best, fine = trial, code
        else:
            coarse = code
        nearest = _nearest(code, reached, floor)
        if fine - coarse <= 1 or (reached <= 1 and nearest >= code):
            return best
        code = min(max(nearest, coarse + 1), fine - 1)
        if guess % 2 and coarse >= 0 and fine <= MAX_STEP_CODE:
            code = (coarse + fine) // 2
        trial = Trial(trial.fitted, rounded(trial.fitted, code))
    return best


def _nearest(code: int, reached: float, floor: float) -> int:
    """Return the code of the largest step that is expected to keep to the limits.

    The step of `code` takes `reached` of the limits, and a step near 0 takes `floor`. In between, the divergence is
    about floor + constant x step^2.
    """
    growth = max(1.0 - floor, 1e-9) / max(reached - floor, 1e-9)
    octaves = min(max(math.log2(growth) / 2.0, -MOST_OCTAVES), MOST_OCTAVES)
    return code - math.floor(STEPS_AN_OCTAVE * octaves + ROUNDED_UP)


def _code(step: float) -> int:
    return int(np.clip(round(STEPS_AN_OCTAVE * math.log2(LARGEST_STEP / step)), 0, MAX_STEP_CODE))
