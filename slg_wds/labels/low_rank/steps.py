"""The largest step of the coefficients with which a table's integers keep to limits of the divergence."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.low_rank.blocks import LARGEST_STEP, MAX_STEP_CODE, STEPS_AN_OCTAVE
from slg_wds.labels.low_rank.classes import Entries
from slg_wds.labels.low_rank.fitting import Table
from slg_wds.labels.low_rank.rounding import Rounded, rounded

Floats = NDArray[np.float64]

NEAR = 0.985  # of a limit: no larger step is sought


@dataclass(frozen=True)
class Limits:
    """What the KL of crops may be, in nats: their mean, and the largest."""

    mean: float
    worst: float

    def reached(self, divergence: Floats) -> float:
        """Return the part of the limits that these divergences take, float64 [m]: over 1, they are broken."""
        return float(max(divergence.mean() / self.mean, divergence.max() / self.worst))


@dataclass(frozen=True, eq=False)
class Trial:
    """A table of m crops, and its integers with some step.

    Attributes:
        entries: the exact distributions.
        fitted: the table.
        found: the integers.
    """

    entries: Entries
    fitted: Table
    found: Rounded

    def of(self, crops: NDArray[np.bool_]) -> Trial:
        """Return some of the crops, bool [m]."""
        fitted = replace(self.fitted, coefficients=self.fitted.coefficients[crops])
        return Trial(self.entries.of(crops), fitted, self.found.of(crops))


def largest_step(entries: Entries, fitted: Table, step: float, limits: Limits) -> Trial | None:
    """Return the integers of the largest step within the limits, None where there is none. `step` is tried first."""
    found = rounded(fitted, entries, _code(step))
    return _larger(Trial(entries, fitted, found), limits)


def coarser(trial: Trial, limits: Limits) -> Trial:
    """Return the integers of a larger step that is still within the limits; if there is none, what was given."""
    return _larger(trial, limits) or trial


def _larger(trial: Trial, limits: Limits) -> Trial | None:
    """Search from a trial on.

    The divergence is about floor + constant x step^2, which foretells the step; every other guess halves what is left.
    """
    best, fine, coarse = None, MAX_STEP_CODE + 1, -1  # codes up to `coarse` are too large a step
    floor = limits.reached(trial.entries.divergence(trial.fitted.entries()))
    for guess in itertools.count():
        code, reached = trial.found.block.step_code, limits.reached(trial.found.divergence)
        if reached <= 1:
            best, fine = trial, code
        else:
            coarse = code
        if NEAR <= reached <= 1 or fine - coarse <= 1:
            break
        growth = max(1.0 - floor, 1e-9) / max(reached - floor, 1e-9)
        code -= round(STEPS_AN_OCTAVE * math.log2(max(growth, 1e-6)) / 2.0)
        if guess % 2 or not coarse < code < fine:
            code = (coarse + fine) // 2
        trial = replace(trial, found=rounded(trial.fitted, trial.entries, code))
    return best


def _code(step: float) -> int:
    return int(np.clip(round(STEPS_AN_OCTAVE * math.log2(LARGEST_STEP / step)), 0, MAX_STEP_CODE))
