"""Distributions of an image's crops -> the low-rank labels of the fewest bits that keep to a mean KL.

Shapes: M crops, C classes, m crops of a block.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.low_rank import (
    LARGEST_STEP,
    MAX_STEP_CODE,
    STEPS_AN_OCTAVE,
    LowRank,
    LowRankBlock,
    StatedKL,
)
from slg_wds.labels.low_rank.choice import MOST_RANK, choose
from slg_wds.labels.low_rank.classes import ClassTable, Entries
from slg_wds.labels.low_rank.fitting import Decomposition, Table, decompose, fit
from slg_wds.labels.low_rank.rounding import Rounded, rounded

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WORST = 5.0  # the divergence of any crop is at most so many times the target
APART = 2.5  # so many times the target is what crops that are unlike the others may have on average
MOST_APART = 1 / 8  # of the crops of a block
MARGIN = 1e-3  # of the target, for what float32 and other releases of numpy change
NEAR = 0.97  # of the target: no larger step is sought
PROBE = 0.6  # of the target may be lost by the classes whose components foretell those of other choices
FLOOR = 0.95  # of the target: a table that is further off before rounding gets more components
BLOCK_CROPS = 4096
LARGE = 1 << 21  # probabilities; of an image with more, one is coded at a time, so that memory is bounded

_one_large = threading.Lock()


@dataclass(frozen=True, eq=False)
class CodedCrops:
    """Some of an image's crops, coded in one block.

    Attributes:
        crops: int64 [m], ascending, which crops.
        block: what they share.
        coefficients: int64 [m, r].
        divergence: float64 [m], nats: KL from the exact distributions to those that a reader decodes.
    """

    crops: Ints
    block: LowRankBlock
    coefficients: Ints
    divergence: Floats

    def of(self, crops: NDArray[np.bool_]) -> CodedCrops:
        """Return some of the crops, bool [m]."""
        return CodedCrops(self.crops[crops], self.block, self.coefficients[crops], self.divergence[crops])


def encode(
    probabilities: NDArray[np.floating],
    max_kl: float,
    against: str = "teacher",
    parents: tuple[float | None, ...] = (),
) -> LowRank:
    """Return the labels of an image's crops within a mean KL.

    They are one block, or several where crops are unlike the others.

    Args:
        probabilities: [M, C], rows that sum to about 1.
        max_kl: nats, above 0: the most that the mean over the crops of KL(exact || stored) may be. Of any crop it is
            at most five times as much.
        against: what the probabilities are, as `StatedKL` says it.
        parents: the same.

    Raises:
        RecordError: no integers of the format keep to `max_kl`.
    """
    target = max_kl * (1.0 - MARGIN)
    with _one_large if probabilities.size > LARGE else threading.Lock():
        coded = [
            one
            for start in range(0, len(probabilities), BLOCK_CROPS)
            for one in _coded(
                probabilities, np.arange(start, min(start + BLOCK_CROPS, len(probabilities))), target
            )
        ]
    return _assembled(coded, len(probabilities), against, parents)


def _assembled(
    coded: list[CodedCrops], crops: int, against: str, parents: tuple[float | None, ...]
) -> LowRank:
    width = max((one.block.rank for one in coded), default=0)
    block_of, coefficients = np.zeros(crops, np.int64), np.zeros((crops, width), np.int64)
    divergence = np.zeros(crops)
    for number, one in enumerate(coded):
        block_of[one.crops], divergence[one.crops] = number, one.divergence
        coefficients[one.crops, : one.block.rank] = one.coefficients
    each = np.maximum(divergence, 0.0)  # rounding may make it negative
    kl = StatedKL(float(each.mean()) if crops else 0.0, float(each.max(initial=0.0)), against, parents)
    return LowRank(tuple(one.block for one in coded), block_of, coefficients, kl)


def _coded(
    probabilities: NDArray[np.floating], crops: Ints, target: float, mean: float = 0.0
) -> list[CodedCrops]:
    """Code these crops within a mean KL, in one block, or several.

    Crops that are unlike most others come in blocks of their own: they would cost the others components, and the mean
    would hide how far off they are.

    Args:
        probabilities: of all crops.
        crops: which to code, at least one.
        target: the mean KL that is asked of the image. Any crop is within WORST times of it.
        mean: the mean KL to keep to; 0 for the target.
    """
    mean = mean or target
    table = ClassTable(probabilities[crops])
    apart = _unlike(table, mean, WORST * target)
    blocks = _coded(probabilities, crops[apart], target, APART * min(mean, target)) if apart.any() else []
    rest, within = crops[~apart], mean
    if blocks:
        table = table.of(np.flatnonzero(~apart))
        within = (mean * len(crops) - sum(float(one.divergence.sum()) for one in blocks)) / len(rest)
    main = _one_block(table, rest, within)
    if main is None:  # crops that have nothing in common, such as certain ones of many classes
        halves = np.array_split(rest, 2)
        return [*(one for half in halves for one in _coded(probabilities, half, target, within)), *blocks]
    over = main.divergence > WORST * target
    if over.any():  # rounding took them over; a block of their own brings the mean down
        blocks += _coded(probabilities, rest[over], target, APART * target)
        main = main.of(~over)
    return [main, *blocks]


def _unlike(table: ClassTable, mean: float, limit: float) -> NDArray[np.bool_]:
    """Find the crops that the first table tried leaves over the limit before rounding, at most an eighth of them."""
    most = int(MOST_APART * table.crops)
    unlike = np.zeros(table.crops, bool)
    if not most:
        return unlike
    kept, rank, _ = next(_attempts(table, mean))
    fitted = fit(kept.entries.probabilities, kept.decomposition, rank)
    each = kept.entries.divergence(fitted.entries())
    largest = np.argsort(-each, kind="stable")[:most]
    unlike[largest] = each[largest] > limit
    return unlike


def _one_block(table: ClassTable, crops: Ints, target: float) -> CodedCrops | None:
    """Code all crops of a table in one block within a mean KL; None where no table that is tried is so close."""
    for kept, rank, step in _attempts(table, target):
        fitted = fit(kept.entries.probabilities, kept.decomposition, rank)
        floor = float(kept.entries.divergence(fitted.entries()).mean())
        if floor <= FLOOR * target:
            found = _largest_step(kept.entries, fitted, floor, step, target)
            if found is not None:
                return CodedCrops(crops, found.block, found.coefficients, found.divergence)
    if table.crops == 1:
        raise RecordError(
            f"no low-rank labels of a crop keep to a mean KL of {target:g} nats", hint="raise --max-kl"
        )
    return None


@dataclass(frozen=True, eq=False)
class Kept:
    """The entries of a number of kept classes, and the components of their log-probabilities."""

    entries: Entries
    decomposition: Decomposition

    @property
    def most_rank(self) -> int:
        """The most components that there are."""
        return len(self.decomposition.variances)


def _attempts(table: ClassTable, target: float) -> Iterator[tuple[Kept, int, float]]:
    """Yield what to try (entries, rank, step): the foretold choice, then about twice the components each time."""
    probe = _kept(
        table, next(n for n, lost in zip(table.counts, table.lost, strict=True) if lost <= PROBE * target)
    )
    choice = choose(table, probe.decomposition.variances, target)
    kept = probe if len(probe.entries.classes) == choice.kept else _kept(table, choice.kept)
    rank = min(choice.rank, kept.most_rank)
    most = min(kept.most_rank, MOST_RANK)
    while True:
        yield kept, rank, choice.step
        if rank == most:
            return
        rank = min(2 * rank + 1, most)


def _kept(table: ClassTable, count: int) -> Kept:
    entries = table.keep(count)
    return Kept(entries, decompose(entries.probabilities))


def _largest_step(
    entries: Entries, fitted: Table, floor: float, step: float, target: float
) -> Rounded | None:
    """Return the integers of the largest step that keeps to the target, None where none does.

    The divergence is about floor + constant x step^2, which foretells the step; every other guess halves what is left.
    """
    best, fine, coarse, code = (
        None,
        MAX_STEP_CODE + 1,
        -1,
        _code(step),
    )  # codes up to `coarse` are too large a step
    for guess in itertools.count():
        found = rounded(fitted, entries, code)
        mean = float(found.divergence.mean())
        if mean <= target:
            best, fine = found, code
        else:
            coarse = code
        if NEAR * target <= mean <= target or fine - coarse <= 1:
            return best
        growth = max(target - floor, 1e-9) / max(mean - floor, 1e-9)
        code -= round(STEPS_AN_OCTAVE * math.log2(max(growth, 1e-6)) / 2.0)
        if guess % 2 or not coarse < code < fine:
            code = (coarse + fine) // 2
    raise AssertionError("unreachable")


def _code(step: float) -> int:
    return int(np.clip(round(STEPS_AN_OCTAVE * math.log2(LARGEST_STEP / step)), 0, MAX_STEP_CODE))
