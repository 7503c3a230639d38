"""Seed, key and rule -> what is done to the pixels of each crop. Every random number is exact on every machine."""

from __future__ import annotations

import numpy as np

from slg_wds.arrays import F64, I64, U8, U64
from slg_wds.format.records.mixing import GRID
from slg_wds.format.records.views import Views
from slg_wds.transforms.crops import CropRule, first_fitting
from slg_wds.transforms.operations import RESAMPLING
from slg_wds.transforms.policies.rules import (
    ERASED_AREA,
    ERASED_RATIO,
    Levels,
    OperationChoice,
    OperationRule,
    ViewRule,
)
from slg_wds.transforms.randomness import VIEWS, philox_of, uniforms

ATTEMPTS = 10  # to fit an erased box, as in timm
# Of 64 bits, per crop: four for each attempt, and four for whether to erase.
ERASING_WORDS = 4 * (ATTEMPTS + 1)
# Per operation: which one, whether it is done, its sign, its resampling, its level, three unused, four more for levels.
OPERATION_WORDS = 12
COINS = 256  # bits of the last four words
_ROUNDING = {"down": np.floor, "up": np.ceil, "nearest": np.rint}


def sample_views(seed: int, key: str, num_crops: int, rule: ViewRule) -> Views:
    """Draw the views of the first `num_crops` crops of an image.

    The result is a pure function of the arguments, and view n does not depend on `num_crops`.

    Args:
        seed: 0 <= seed < 2**63.
        key: the image's key in the label set.
        num_crops: M, at least 0.
        rule: what to draw, with both of its colours.

    Returns:
        The views of M crops.
    """
    width = ERASING_WORDS + OPERATION_WORDS * rule.count
    words = philox_of(seed, key, VIEWS).random_raw(num_crops * width).reshape(num_crops, width)
    erased = _erased(words[:, :ERASING_WORDS], rule.erased)
    codes, arguments, first = [], [], ERASING_WORDS
    for one in rule.operations:
        last = first + OPERATION_WORDS * one.count
        drawn = _operations(words[:, first:last].reshape(num_crops, one.count, OPERATION_WORDS), one)
        codes.append(drawn[0])
        arguments.append(drawn[1])
        first = last
    none = np.zeros((num_crops, 0), np.uint8)
    return Views(
        np.concatenate([none, *codes], axis=1),
        np.concatenate([none, *arguments], axis=1),
        erased,
        rule.fill or 0,
        rule.erase_fill or 0,
    )


def _operations(words: U64, rule: OperationRule) -> tuple[U8, U8]:
    """Draw the operations of one rule: codes and arguments uint8 [M, n] from words [M, n, OPERATION_WORDS]."""
    drawn = uniforms(words[:, :, :5])
    chosen = _chosen(drawn[:, :, 0], rule)
    levels = _levels(words, drawn[:, :, 4], rule.levels)
    resamplings = np.array(rule.resamplings)[(drawn[:, :, 3] * len(rule.resamplings)).astype(np.int64)]
    codes, arguments = np.zeros(chosen.shape, np.uint8), np.zeros(chosen.shape, np.uint8)
    for number, choice in enumerate(rule.choices):
        at = (chosen == number) & (drawn[:, :, 1] < rule.probability)
        code, arguments[at] = choice.operation.encode(_values(choice, levels[at], drawn[:, :, 2][at]))
        if choice.operation.resampled:
            code = code + (RESAMPLING * resamplings[at]).astype(np.uint8)
        codes[at] = code
    return codes, arguments


def _chosen(uniform: F64, rule: OperationRule) -> I64:
    """Draw the numbers of choices, int64 [M, n], from uniform numbers of that shape."""
    if rule.weights is None:
        return (uniform * len(rule.choices)).astype(np.int64)
    left = np.tile(np.array(rule.weights, np.float64), (len(uniform), 1))
    chosen = np.zeros(uniform.shape, np.int64)
    for n in range(rule.count):
        total = left.cumsum(axis=1)
        chosen[:, n] = (total > uniform[:, n : n + 1] * total[:, -1:]).argmax(axis=1)
        left[np.arange(len(left)), chosen[:, n]] = 0.0
    return chosen


def _levels(words: U64, uniform: F64, levels: Levels) -> F64:
    """Draw levels in 0..1, of the shape of `uniform`."""
    if levels.bins:
        return np.floor(uniform * levels.bins) * (levels.top / (levels.bins - 1))
    if levels.even:
        return uniform * levels.top
    if not levels.spread:
        return np.full(uniform.shape, levels.top)
    # The heads of 256 fair coins, smoothed by a uniform number: a normal distribution to 0.0002 in its cumulative one,
    # without the logarithm, whose last bits differ between machines.
    coins = np.ascontiguousarray(words[:, :, -4:]).view(np.uint8)
    heads = np.unpackbits(coins, axis=-1).sum(axis=-1, dtype=np.int64)
    normal = (heads - COINS / 2 + uniform - 0.5) / (COINS / 4 + 1 / 12) ** 0.5
    drawn: F64 = np.clip(levels.top + levels.spread * normal, 0.0, 1.0)
    return drawn


def _values(choice: OperationChoice, levels: F64, uniform: F64) -> F64:
    """Return the values of an operation at these levels; `uniform` decides their signs."""
    values = choice.start + levels * (choice.end - choice.start)
    if choice.rounding is not None:
        values = _ROUNDING[choice.rounding](values)
    if choice.mirrored:
        values = np.where(uniform < 0.5, -values, values)
    return choice.operation.origin + values if choice.operation.signed else values


def _erased(words: U64, probability: float) -> U8:
    """Draw an erased box for each crop, uint8 [M, 4], zeros for none, by timm's rule on a grid of 1/255."""
    drawn = uniforms(words).reshape(len(words), ATTEMPTS + 1, 4)
    rule = CropRule(ERASED_AREA, ERASED_RATIO)
    boxes, found = first_fitting(drawn[:, :ATTEMPTS], (GRID, GRID), rule)
    boxes[~found | (drawn[:, ATTEMPTS, 0] >= probability)] = 0
    return boxes.astype(np.uint8)
