"""Distributions of an image's crops -> the low-rank labels of the fewest bits that keep to a mean KL.

Shapes: M crops, C classes, m crops of a block.
"""

from __future__ import annotations

import math
import threading
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import F64, I64, Bools
from slg_wds.errors import RecordError
from slg_wds.format.records.low_rank.blocks import LowRank, LowRankBlock, StatedKL
from slg_wds.labels.low_rank.attempts import Attempts
from slg_wds.labels.low_rank.classes import ClassTable
from slg_wds.labels.low_rank.steps import Limits, Trial, coarser, largest_step

WORST = 5.0  # the divergence of any crop is at most so many times the target
APART = 4.0  # the mean divergence of crops in blocks of their own is at most so many times the target
FAR = 3.0  # times the median squared distance from the mean: a crop beyond it is far
MOST_FAR = 1 / 12  # of the crops of a block
SAVED = 0.9  # of the bits of one block: two of fewer bits are made
MOST_OFF = 1 / 8  # of the crops of a block
MARGIN = 1e-3  # of the target, for what float32 and other releases of numpy change
FLOOR = 0.95  # of the limits: a table that is further off before rounding gets more components
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

    crops: I64
    block: LowRankBlock
    coefficients: I64
    divergence: F64


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
    with _one_large if probabilities.size > LARGE else nullcontext():
        coded, crops = list[CodedCrops](), np.arange(len(probabilities))
        for start in range(0, len(crops), BLOCK_CROPS):
            some = crops[start : start + BLOCK_CROPS]
            coded += _coded(Attempts(ClassTable(probabilities[some])), some, target)
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


def _coded(attempts: Attempts, crops: I64, target: float, mean: float = 0.0) -> list[CodedCrops]:
    """Code crops within a mean KL, in one block, or several.

    Crops that are unlike most others come in blocks of their own: they would cost the others components, and the mean
    would hide how far off they are.

    Args:
        attempts: for these crops.
        crops: which they are of the image, at least one.
        target: the mean KL that is asked of the image. Any crop is within WORST times of it.
        mean: the mean KL to keep to; 0 for the target.
    """
    mean = mean or target
    blocks, within = list[CodedCrops](), mean
    for unlike in (_far, _off):
        apart = unlike(attempts, within, target)
        if apart.any():
            few, attempts = attempts.split(apart)
            blocks += _coded(few, crops[apart], target, APART * target)
            crops = crops[~apart]
            within = _left(mean, blocks, len(crops))
    # Crops apart keep to the limit all together. Among the others, those over it become a block of their own.
    limits = Limits(within, WORST * target if mean > target else math.inf)
    main = _one_block(attempts, limits)
    if main is None:  # crops that have nothing in common, such as certain ones of many classes
        first = np.arange(len(crops)) < (len(crops) + 1) // 2
        halves = zip(attempts.split(first), (crops[first], crops[~first]), strict=True)
        return [*(one for half, some in halves for one in _coded(half, some, target, within)), *blocks]
    near = main.found.divergence <= WORST * target
    if not near.all():
        blocks += _coded(attempts.split(~near)[0], crops[~near], target, APART * target)
        crops = crops[near]
        main = coarser(main.of(near), Limits(_left(mean, blocks, len(crops)), WORST * target))
    found = main.found
    return [CodedCrops(crops, found.block, found.coefficients, found.divergence), *blocks]


def _left(mean: float, blocks: list[CodedCrops], rest: int) -> float:
    """Return the mean KL that the rest of the crops may have, with the mean of all of them and of these blocks."""
    crops = rest + sum(len(one.crops) for one in blocks)
    return (mean * crops - sum(float(one.divergence.sum()) for one in blocks)) / rest


def _far(attempts: Attempts, mean: float, target: float) -> Bools:
    """Find a few crops far from the mean distribution, if all take fewer estimated bits with these in another block."""
    distance = np.square(attempts.probe(mean).decomposition.weighted.logs).sum(axis=1)
    far: Bools = distance > FAR * np.median(distance)
    left = (mean - far.mean() * APART * target) / (1.0 - far.mean())
    if not 0 < far.sum() <= MOST_FAR * len(far) or left <= 0:
        return np.zeros(len(far), bool)
    few, others = attempts.split(far)
    apart = few.choice(APART * target).bits + others.choice(left).bits
    return far if apart < SAVED * attempts.choice(mean).bits else np.zeros(len(far), bool)


def _off(attempts: Attempts, mean: float, target: float) -> Bools:
    """Find the crops that the first table tried leaves over the limit before rounding, at most an eighth of them.

    Nor are they more than would take, with APART times the target each, half of what all crops may have together.
    """
    most = int(min(MOST_OFF, mean / (2.0 * APART * target)) * attempts.table.crops)
    off = np.zeros(attempts.table.crops, bool)
    if not most:
        return off
    fitted, _ = next(attempts.each(mean))
    divergence = fitted.divergence
    largest = np.argsort(-divergence, kind="stable")[:most]
    off[largest] = divergence[largest] > WORST * target
    return off


def _one_block(attempts: Attempts, limits: Limits) -> Trial | None:
    """Code all crops in one block; None where no table that is tried is within the limits."""
    for fitted, step in attempts.each(limits.mean):
        if limits.reached(fitted.divergence) <= FLOOR:
            trial = largest_step(fitted, step, limits)
            if trial is not None:
                return trial
    if attempts.table.crops == 1:
        raise RecordError(
            "no low-rank labels of a crop are as close as --max-kl asks",
            hint="raise --max-kl, or keep every class with --label-type full",
        )
    return None
