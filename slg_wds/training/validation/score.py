"""What a validation is, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn


class Score(NamedTuple):
    """What a validation found; the same in all processes.

    Attributes:
        percent: which decides what the best checkpoint is; higher is better.
        figures: all that was measured, by names for a log.
        text: the same in words.
    """

    percent: float
    figures: dict[str, float]
    text: str


Validation = Callable[[nn.Module], Score]
