"""Embeddings of an image's crops -> low-rank embeddings: blocks, and crops that are too far off."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.embeddings.cosines import cosines
from slg_wds.format.records.embeddings.low_rank import (
    WORST,
    LowRankEmbedding,
    StatedCosine,
    joined_low_rank,
    length_codes,
)
from slg_wds.format.records.embeddings.plain import exact_embeddings
from slg_wds.labels.low_rank_embeddings.decomposition import DirectionComponents
from slg_wds.labels.low_rank_embeddings.rounding import MAX_CODE, RoundedDirections, rounded
from slg_wds.labels.low_rank_embeddings.steps import largest_step

# More crops in a block take fewer bytes, and time that grows with their square.
BLOCK_CROPS, MOST_BLOCKS = 512, 32
LESS = 0.75  # of what a crop may lose goes to components that it lacks, the rest to rounding
ROUNDS = 3  # of components for crops that are too far off
FINER = 11  # steps to try: the first may miss the cosines, by a reader's float32 or by single crops
COARSE = 1e-3  # where 1 - cosine may be so large, float32 is exact enough, and takes half the time of float64


def encode_embedding(vectors: NDArray[Any], min_cosine: float) -> LowRankEmbedding:
    """Code the embeddings of an image's crops.

    Args:
        vectors: [M, D], finite numbers.
        min_cosine: above 0 and below 1: the least that the mean over the crops of the cosine between the float32
            embedding and what a reader recovers may be. 1 - the cosine of any crop is at most four times
            1 - min_cosine.

    Raises:
        RecordError: a number is not finite, or no numbers of the format are so close.
    """
    exact = exact_embeddings(vectors)
    crops, dim = exact.shape
    blocks = max(1, -(-crops // BLOCK_CROPS))
    parts = np.array_split(exact, min(blocks, MOST_BLOCKS)) if crops else []
    if not parts:
        none = np.zeros(0, np.int64)
        return LowRankEmbedding(dim, (), none, none, np.zeros((0, 0), np.int64), StatedCosine(1.0, 1.0))
    return joined_low_rank([_coded(part, min_cosine) for part in parts])


def _coded(exact: NDArray[np.float32], min_cosine: float) -> LowRankEmbedding:
    """Code one block."""
    allowed = 1.0 - min_cosine
    lengths = np.sqrt(np.square(exact, dtype=np.float64).sum(axis=1))
    some = lengths > 0
    directions = exact[some] / lengths[some, None]
    found = DirectionComponents(directions.astype(np.float32) if allowed >= COARSE else directions)
    for trial in _trials(found, allowed):
        coefficients = np.zeros((len(exact), trial.block.rank), np.int64)
        coefficients[some] = trial.coefficients
        none = np.zeros(len(exact), np.int64)
        coded = LowRankEmbedding(
            exact.shape[1], (trial.block,), none, length_codes(lengths), coefficients, StatedCosine(1.0, 1.0)
        )
        each = np.clip(cosines(exact, coded.vectors), -1.0, 1.0)
        mean, worst = float(each.mean()), float(each.min())
        if mean >= min_cosine and 1.0 - worst <= WORST * allowed:
            return dataclasses.replace(coded, cosine=StatedCosine(mean, worst))
    raise RecordError(
        f"no low-rank embeddings have a mean cosine of {min_cosine}: it is {mean:.15g}",
        hint="give a lower --min-cosine, or --values float32 without it",
    )


def _trials(found: DirectionComponents, allowed: float) -> Iterator[RoundedDirections]:
    """Yield integers with the largest step for the mean, then with finer ones."""
    first, trial = largest_step(found, allowed)
    most = WORST * allowed
    for finer in range(FINER):
        code = min(first + 2**finer - 1, MAX_CODE)
        trial = rounded(found, code) if finer else trial
        for _ in range(ROUNDS):
            off = trial.lost > most
            # 1 - cosine is half the squared distance.
            if not off.any() or not found.add(off, trial.shared, 2 * most * LESS, 2 * most * (1 - LESS)):
                break
            trial = rounded(found, code)
        yield trial
