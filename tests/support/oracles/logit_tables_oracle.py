"""Invented low-rank labels, and their distributions restated class by class."""

from __future__ import annotations

import math

import numpy as np

from slg_wds.format.records.low_rank.blocks import LowRank, LowRankBlock, StatedKL


def made_image(
    seed: int, crops: int, classes: int, kept: int, rank: int, blocks: int = 1, least: int = 0
) -> LowRank:
    """Draw the integers of low-rank labels; a block may keep fewer classes and have fewer components.

    With a `least` of the mean's integers above 0, the labels are less sure.
    """
    draw = np.random.default_rng(seed)
    parts = []
    for number in range(blocks):
        n, r = max(0, kept - number), max(0, rank - number)
        entries = n + (n < classes)
        parts.append(
            LowRankBlock(
                classes,
                np.sort(draw.permutation(classes)[:n]),
                draw.integers(least, 40, entries),
                draw.integers(-3, 4, (r, entries)),
                draw.integers(0, 6, r),
                int(draw.integers(40, 90)) + 2 * least,
            )
        )
    block_of = np.concatenate([np.arange(blocks), draw.integers(0, blocks, crops)])[:crops]
    coefficients = draw.integers(-4, 5, (crops, rank))
    for number, block in enumerate(parts):
        coefficients[block_of == number, block.rank :] = 0
    return LowRank(tuple(parts), block_of, coefficients, StatedKL(0.0, 0.0))


def oracle(labels: LowRank, power: float = 1.0) -> np.ndarray:
    """The rows, float64 [M, C], class by class: those that are not kept share the last entry evenly."""
    rows = []
    for number, coefficients in zip(labels.block_of, labels.coefficients, strict=True):
        block = labels.blocks[number]
        logits = block.mean + coefficients[: block.rank] @ block.rows
        others = block.num_classes - len(block.classes)
        each = np.full(block.num_classes, logits[-1] - math.log(others) if others else 0.0)
        each[block.classes] = logits[: len(block.classes)]
        each = np.exp(power * (each - each.max()))
        rows.append(each / each.sum())
    return np.array(rows)
