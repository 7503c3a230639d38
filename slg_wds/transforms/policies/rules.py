"""What a policy consists of: which operations may be drawn, and how strong they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from slg_wds.errors import UsageError
from slg_wds.format.records.views import MAX_OPERATIONS
from slg_wds.transforms.operations import Operation

ERASED_AREA = (0.02, 1 / 3)  # of the view, as in the paper of random erasing (arXiv 1708.04896) and in timm
ERASED_RATIO = (0.3, 1 / 0.3)
BLACK = 0


@dataclass(frozen=True)
class OperationChoice:
    """An operation that a policy may draw. Its value is `start` + level x (`end` - `start`), the level in 0..1.

    Attributes:
        operation: the operation.
        start: the value at level 0; for signed operations the distance from the operation's origin.
        end: the value at level 1, likewise.
        mirrored: half of the distances are taken to the other side of the origin.
        rounding: how values become whole numbers, where the operation takes such.
    """

    operation: Operation
    start: float = 0.0
    end: float = 0.0
    mirrored: bool = False
    rounding: Literal["down", "up", "nearest"] | None = None


@dataclass(frozen=True)
class Levels:
    """How strong operations are drawn, as a level in 0..1.

    Attributes:
        top: the level; with `spread` the mean, with `even` or `bins` the largest.
        spread: the standard deviation of a normal distribution, cut to 0..1.
        even: drawn evenly from 0 to `top`.
        bins: drawn evenly from so many equidistant levels from 0 to `top`; 0 for none of that.
    """

    top: float
    spread: float = 0.0
    even: bool = False
    bins: int = 0


@dataclass(frozen=True)
class OperationRule:
    """Several operations that are drawn for each crop and done one after the other.

    Attributes:
        choices: what is drawn from.
        count: how many are drawn.
        levels: how strong they are.
        weights: of the choices, which are then drawn without replacement; None for equal ones with replacement.
        probability: with which each drawn operation is done.
        resamplings: which of `operations.RESAMPLINGS` are drawn, evenly.
    """

    choices: tuple[OperationChoice, ...]
    count: int
    levels: Levels
    weights: tuple[float, ...] | None = None
    probability: float = 1.0
    resamplings: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class ViewRule:
    """How the views of an image are drawn: operations, then an erased box.

    Attributes:
        operations: the rules whose operations are done, in this order.
        erased: the probability of an erased box.
        fill: 0xRRGGBB, of pixels that come in from outside. None: the mean of the teacher's normalisation.
        erase_fill: of erased boxes, likewise.

    Raises:
        UsageError: a view would have more operations than can be recorded, or a probability is none.
    """

    operations: tuple[OperationRule, ...] = ()
    erased: float = 0.0
    fill: int | None = BLACK
    erase_fill: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.erased <= 1:
            raise UsageError(f"--reprob {self.erased:g} is not a probability")
        if self.count > MAX_OPERATIONS:
            raise UsageError(f"{self.count} operations a view are over the limit of {MAX_OPERATIONS}")

    @property
    def count(self) -> int:
        """Operations of a view, S."""
        return sum(rule.count for rule in self.operations)

    def with_mean(self, mean: Sequence[float]) -> ViewRule:
        """Return the rule with the mean of a normalisation, (red, green, blue) in 0..1, as the colour left open."""
        red, green, blue = (min(255, round(255 * part)) for part in mean)
        colour = red << 16 | green << 8 | blue
        fill = colour if self.fill is None else self.fill
        erase_fill = colour if self.erase_fill is None else self.erase_fill
        return replace(self, fill=fill, erase_fill=erase_fill if self.erased else BLACK)
