"""Low-rank embeddings: the directions of an image's crops as a mean, a basis and a few coefficients for each crop.

Crops that are coded together are a *block*: a run of the image's crops. All is stored as integers. A crop has the
direction

    w[e] = mean[e] * 2 ** (-scale / 2) + sum over j of coefficient[j] * basis[e, j] * 2 ** (-scale[j] / 2)

and a length of its own. What is stated is the cosine between the teacher's embedding and what a reader recovers.

Shapes: M crops of a record, D numbers of an embedding, m crops and r components of a block, B blocks, R the sum of
their r, W the largest r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import F32, F64, I64

LOW_RANK_VALUES = "lowrank"  # the coding of such embeddings, and the field of their records
LOW_RANK_EMBEDDINGS = "lowrank_embeddings"  # the feature that their sets require
MAX_RANK = 4096
WORST = 4.0  # 1 - the cosine of any crop is at most so many times 1 - `min_cosine`, which is about twice the angle
MAX_SCALE = 128
LENGTHS_AN_OCTAVE, UNIT_LENGTH, MAX_LENGTH = 64, 10240, 20480


@dataclass(frozen=True)
class StatedCosine:
    """How far low-rank embeddings are from what they were coded from.

    Attributes:
        mean: the mean over the crops of the cosine between the exact embedding and the stored one, -1 to 1.
        worst: the least of a crop.
    """

    mean: float
    worst: float


@dataclass(frozen=True, eq=False)
class EmbeddingBlock:
    """What the crops of a block share.

    Attributes:
        scales: int64 [1 + r], 0 to MAX_SCALE: half-octaves by which the mean, and each component, are finer than an
            integer.
        mean: int64 [D].
        basis: int64 [D, r].
    """

    scales: I64
    mean: I64
    basis: I64

    @property
    def rank(self) -> int:
        """r, the components of which a crop has coefficients."""
        return int(self.basis.shape[1])


@dataclass(frozen=True, eq=False)
class LowRankEmbedding:
    """What one teacher gave for the crops of a record, coded to a stated mean cosine.

    Attributes:
        dim: numbers of each crop, D.
        blocks: the blocks.
        block_of: int64 [M], the block of each crop; those of a block stand together.
        lengths: int64 [M], 0 to MAX_LENGTH: codes of the lengths.
        coefficients: int64 [M, W]; zeros beyond the rank of the crop's block.
        cosine: how far the numbers are from those that were coded.
    """

    dim: int
    blocks: tuple[EmbeddingBlock, ...]
    block_of: I64
    lengths: I64
    coefficients: I64
    cosine: StatedCosine

    @property
    def values(self) -> str:
        """How numbers are stored."""
        return LOW_RANK_VALUES

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, crops: Any) -> LowRankEmbedding:
        """Return the embeddings of some crops, an index into the first axis. The stated cosine stays that of all."""
        return replace(
            self,
            block_of=self.block_of[crops],
            lengths=self.lengths[crops],
            coefficients=self.coefficients[crops],
        )

    @property
    def vectors(self) -> F32:
        """The numbers that a reader sees, float32 [M, D]."""
        found = np.empty((len(self), self.dim), np.float32)
        for number, block in enumerate(self.blocks):
            mine = np.flatnonzero(self.block_of == number)
            coefficients = self.coefficients[mine, : block.rank].astype(np.float32)
            parts = (block.scales, block.mean.astype(np.float32), block.basis.astype(np.float32))
            found[mine] = vectors_of(*parts, coefficients, self.lengths[mine])
        return found


def vectors_of(scales: NDArray[Any], mean: F32, basis: F32, coefficients: F32, lengths: NDArray[Any]) -> F32:
    """Return the numbers of crops of one block.

    Args:
        scales: int [1 + r].
        mean: float32 [D], whole numbers.
        basis: float32 [D, r], the same.
        coefficients: float32 [m, r], the same.
        lengths: int [m], codes.

    Returns:
        float32 [m, D].
    """
    units = np.exp2(scales / -2.0).astype(np.float32)
    w: F32 = (coefficients * units[1:]) @ basis.T
    w += mean * units[0]
    norms = np.sqrt(np.einsum("md,md->m", w, w, dtype=np.float64))
    factors = np.where(norms > 0, length_of(lengths) / np.where(norms > 0, norms, 1.0), 0.0)
    largest = float(np.finfo(np.float32).max)
    if (small := factors < 1e30).all() and (factors[small] > 1e-30).all():
        w *= factors.astype(np.float32)[:, None]
        return w
    return np.clip(w * factors[:, None], -largest, largest).astype(np.float32)


def length_of(codes: NDArray[Any]) -> F64:
    """Return the lengths that codes stand for, float64: 0, or 2^((code - 10240) / 64)."""
    lengths = np.exp2((codes.astype(np.float64) - UNIT_LENGTH) / LENGTHS_AN_OCTAVE)
    return np.where(codes > 0, lengths, 0.0)


def length_codes(lengths: F64) -> I64:
    """Return the codes nearest to lengths [M], within 0.6%; 0 for 0."""
    octaves = np.log2(np.where(lengths > 0, lengths, 1.0))
    codes = np.clip(np.rint(octaves * LENGTHS_AN_OCTAVE) + UNIT_LENGTH, 1, MAX_LENGTH).astype(np.int64)
    return np.where(lengths > 0, codes, 0)


def joined_low_rank(parts: Sequence[LowRankEmbedding]) -> LowRankEmbedding:
    """Join the embeddings of an image's crops from several sets, in their order. Blocks stay as they are."""
    firsts = np.cumsum([0, *(len(part.blocks) for part in parts)])
    width = max(part.coefficients.shape[1] for part in parts)
    counts = [len(part) for part in parts]
    mean = float(np.average([part.cosine.mean for part in parts], weights=counts)) if sum(counts) else 1.0
    return LowRankEmbedding(
        dim=parts[0].dim,
        blocks=tuple(block for part in parts for block in part.blocks),
        block_of=np.concatenate([part.block_of + first for part, first in zip(parts, firsts, strict=False)]),
        lengths=np.concatenate([part.lengths for part in parts]),
        coefficients=np.concatenate(
            [np.pad(part.coefficients, ((0, 0), (0, width - part.coefficients.shape[1]))) for part in parts]
        ),
        cosine=StatedCosine(mean, min(part.cosine.worst for part in parts)),
    )
