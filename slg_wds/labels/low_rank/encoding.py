"""Distributions of an image's crops -> the low-rank labels of the fewest bits that keep to a mean KL.

Shapes: M crops, C classes, m crops of a block.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.low_rank import LowRank, LowRankBlock, StatedKL
from slg_wds.labels.low_rank.choice import MOST_RANK, choose
from slg_wds.labels.low_rank.classes import ClassTable, Entries
from slg_wds.labels.low_rank.fitting import Decomposition, decompose, fit
from slg_wds.labels.low_rank.steps import Limits, Trial, coarser, largest_step

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WORST = 5.0  # the divergence of any crop is at most so many times the target
APART = 4.0  # so many times the target is what crops that are unlike the others may have on average
FAR, MOST_FAR = 3.0, 1 / 12  # of the median squared distance from the mean; of the crops of a block
SAVED = 0.9  # of the bits of one block: two of fewer bits are made
MOST_OFF = 1 / 8  # of the crops of a block
MARGIN = 1e-3  # of the target, for what float32 and other releases of numpy change
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
    table, blocks, rest, within = ClassTable(probabilities[crops]), list[CodedCrops](), crops, mean
    for unlike in (_far, _off):
        apart = unlike(table, within, target)
        if apart.any():
            blocks += _coded(probabilities, rest[apart], target, APART * target)
            rest, table = rest[~apart], table.of(np.flatnonzero(~apart))
            within = _left(mean, blocks, len(rest))
    # Crops apart keep to the limit all together. Among the others, those over it become a block of their own.
    limits = Limits(within, WORST * target if mean > target else math.inf)
    main = _one_block(table, limits)
    if main is None:  # crops that have nothing in common, such as certain ones of many classes
        halves = np.array_split(rest, 2)
        return [*(one for half in halves for one in _coded(probabilities, half, target, within)), *blocks]
    near = main.found.divergence <= WORST * target
    if not near.all():
        blocks += _coded(probabilities, rest[~near], target, APART * target)
        rest = rest[near]
        main = coarser(main.of(near), Limits(_left(mean, blocks, len(rest)), WORST * target))
    found = main.found
    return [CodedCrops(rest, found.block, found.coefficients, found.divergence), *blocks]


def _left(mean: float, blocks: list[CodedCrops], rest: int) -> float:
    """Return the mean KL that the rest of the crops may have, with the mean of all of them and of these blocks."""
    crops = rest + sum(len(one.crops) for one in blocks)
    return (mean * crops - sum(float(one.divergence.sum()) for one in blocks)) / rest


def _far(table: ClassTable, mean: float, target: float) -> NDArray[np.bool_]:
    """Find a few crops far from the mean distribution, if all take fewer estimated bits with these in another block."""
    probe = _probe(table, mean)
    distance = np.square(probe.decomposition.weighted).sum(axis=1)
    far = distance > FAR * np.median(distance)
    left = (mean - far.mean() * APART * target) / (1.0 - far.mean())
    if not 0 < far.sum() <= MOST_FAR * table.crops or left <= 0:
        return np.zeros(table.crops, bool)
    together = choose(table, probe.decomposition.variances, mean).bits
    parts = ((table.of(np.flatnonzero(far)), APART * target), (table.of(np.flatnonzero(~far)), left))
    apart = sum(choose(part, _probe(part, kl).decomposition.variances, kl).bits for part, kl in parts)
    return far if apart < SAVED * together else np.zeros(table.crops, bool)


def _off(table: ClassTable, mean: float, target: float) -> NDArray[np.bool_]:
    """Find the crops that the first table tried leaves over the limit before rounding, at most an eighth of them."""
    most = int(MOST_OFF * table.crops)
    off = np.zeros(table.crops, bool)
    if not most:
        return off
    kept, rank, _ = next(_attempts(table, mean))
    fitted = fit(kept.entries.probabilities, kept.decomposition, rank)
    each = kept.entries.divergence(fitted.entries())
    largest = np.argsort(-each, kind="stable")[:most]
    off[largest] = each[largest] > WORST * target
    return off


def _one_block(table: ClassTable, limits: Limits) -> Trial | None:
    """Code all crops of a table in one block; None where no table that is tried is within the limits."""
    for kept, rank, step in _attempts(table, limits.mean):
        fitted = fit(kept.entries.probabilities, kept.decomposition, rank)
        floor = float(kept.entries.divergence(fitted.entries()).mean())
        if floor <= FLOOR * limits.mean:
            trial = largest_step(kept.entries, fitted, step, limits)
            if trial is not None:
                return trial
    if table.crops == 1:
        raise RecordError(
            f"no low-rank labels of a crop keep to a mean KL of {limits.mean:g} nats", hint="raise --max-kl"
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
    probe = _probe(table, target)
    choice = choose(table, probe.decomposition.variances, target)
    kept = probe if len(probe.entries.classes) == choice.kept else _kept(table, choice.kept)
    rank = min(choice.rank, kept.most_rank)
    most = min(kept.most_rank, MOST_RANK)
    while True:
        yield kept, rank, choice.step
        if rank == most:
            return
        rank = min(2 * rank + 1, most)


def _probe(table: ClassTable, target: float) -> Kept:
    """Return the entries and components from which those of other numbers of classes are foretold."""
    return _kept(
        table, next(n for n, lost in zip(table.counts, table.lost, strict=True) if lost <= PROBE * target)
    )


def _kept(table: ClassTable, count: int) -> Kept:
    entries = table.keep(count)
    return Kept(entries, decompose(entries.probabilities))
