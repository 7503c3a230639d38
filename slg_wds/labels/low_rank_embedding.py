"""Embeddings of an image's crops -> low-rank embeddings to a stated mean cosine.

The crops of one image are views of one thing, so the table of their embeddings is close to low rank. Directions alone
are coded, since only they change the cosine; lengths are stored beside them. Of crops with the directions u = x / |x|,
1 - cosine is half the squared distance, which a singular value decomposition makes smallest. Every number is rounded
with such a step that its error costs as much as that of any other (d^2 / 12): so coefficients have the step d, and a
component of the basis the step d / (the norm of its coefficients). Then d alone decides the rank and all steps, and
the largest d is sought whose *measured* cosine is the target.

All is done in float64 and in a fixed order, so the bytes depend on nothing but the embeddings, the software and the
kind of machine. For products of matrices that holds only with one thread: see
`slg_wds.concurrency.threads.one_blas_thread`.

Shapes: M crops of an image, m crops of a block, D numbers, R components that exist, r that are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.embeddings.cosines import cosines
from slg_wds.format.records.embeddings.low_rank import (
    MAX_RANK,
    MAX_SCALE,
    EmbeddingBlock,
    LowRankEmbedding,
    StatedCosine,
    joined_low_rank,
    length_codes,
)
from slg_wds.format.records.embeddings.plain import exact_embeddings

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BLOCK_CROPS, MOST_BLOCKS = (
    512,
    32,
)  # more crops in a block take fewer bytes, and time that grows with their square
LARGEST_STEP, STEPS_AN_OCTAVE, MAX_CODE = 4.0, 64, 64 * 24
KEPT = 0.2  # a component is kept if its numbers have a mean square above so many squares of the step
DEAD_ZONE = 0.15  # of a step: numbers of the basis are rounded towards 0 where they are so close to a half
ROUNDING = 1.1  # of d^2 / 12 a number: what the dead zone makes of it
NEAR = 0.98  # of the allowed 1 - cosine: no larger step is sought
FINER = 8  # codes that are tried where the float32 numbers of a reader miss the target that float64 ones meet
RIDGE = 1e-9
TINY = 1e-7  # of the largest singular value: components below are rounding


def encode_embedding(vectors: NDArray[Any], min_cosine: float) -> LowRankEmbedding:
    """Code the embeddings of an image's crops.

    Args:
        vectors: [M, D], finite numbers.
        min_cosine: above 0 and below 1: the least that the mean over the crops of the cosine between the float32
            embedding and what a reader recovers may be.

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


@dataclass(frozen=True, eq=False)
class _Decomposition:
    """Directions of crops as a mean and orthogonal components, the largest first.

    Attributes:
        directions: float64 [m, D], rows of unit length; zeros for zero vectors, which are no part of the rest.
        mean: float64 [D].
        norms: float64 [R], of the coefficients of each component.
        components: float64 [R, D], orthonormal.
    """

    directions: Floats
    mean: Floats
    norms: Floats
    components: Floats


@dataclass(frozen=True, eq=False)
class _Rounded:
    """The integers of a block, and 1 - the mean cosine that float64 numbers would have."""

    block: EmbeddingBlock
    coefficients: Ints
    lost: float


def _coded(exact: NDArray[np.float32], min_cosine: float) -> LowRankEmbedding:
    """Code one block."""
    lengths = np.sqrt(np.square(exact, dtype=np.float64).sum(axis=1))
    some = lengths > 0
    directions = exact[some] / lengths[some, None]
    found = _decomposed(directions)
    code, rounded = _largest_step(found, 1.0 - min_cosine)
    for finer in range(code, code + FINER):
        rounded = rounded if finer == code else _rounded(found, _step_of(finer))
        coefficients = np.zeros((len(exact), rounded.block.rank), np.int64)
        coefficients[some] = rounded.coefficients
        none = np.zeros(len(exact), np.int64)
        stated = StatedCosine(1.0, 1.0)
        coded = LowRankEmbedding(
            exact.shape[1], (rounded.block,), none, length_codes(lengths), coefficients, stated
        )
        each = np.clip(cosines(exact, coded.vectors), -1.0, 1.0)
        if each.mean() >= min_cosine:
            stated = StatedCosine(float(each.mean()), float(each.min()))
            return LowRankEmbedding(
                coded.dim, coded.blocks, coded.block_of, coded.lengths, coefficients, stated
            )
    raise RecordError(
        f"no low-rank embeddings have a mean cosine of {min_cosine}: it is {each.mean():.15g}",
        hint="give a lower --min-cosine, or --values float32 without it",
    )


def _decomposed(directions: Floats) -> _Decomposition:
    """Return the components of directions [m, D], by the eigenvectors of the smaller matrix of products."""
    crops, dim = directions.shape
    if not crops:
        return _Decomposition(directions, np.zeros(dim), np.zeros(0), np.zeros((0, dim)))
    mean = directions.mean(axis=0)
    centred = directions - mean
    squares, vectors = np.linalg.eigh(centred.T @ centred if dim < crops else centred @ centred.T)
    norms = np.sqrt(np.maximum(squares[::-1], 0.0))
    there = norms > max(float(norms[0]) * TINY, 1e-9)
    norms, vectors = norms[there][:MAX_RANK], vectors[:, ::-1][:, there][:, :MAX_RANK]
    components = vectors.T if dim < crops else (vectors / norms).T @ centred
    return _Decomposition(directions, mean, norms, components)


def _largest_step(found: _Decomposition, allowed: float) -> tuple[int, _Rounded]:
    """Return the code of the largest step with which 1 - cosine is allowed, and its integers.

    What is lost is about in proportion to the square of the step, which foretells the next one to try.
    """
    fine, coarse = MAX_CODE + 1, -1
    code, best = _foretold(found, allowed), None
    while True:
        rounded = _rounded(found, _step_of(code))
        if rounded.lost <= allowed or code == MAX_CODE:
            best, fine = rounded, code
        else:
            coarse = code
        if best is not None and (fine - coarse == 1 or NEAR * allowed <= rounded.lost <= allowed):
            return fine, best
        octaves = math.log2(max(rounded.lost, allowed / 1e3) / (0.99 * allowed)) / 2.0
        code = fine - 1 if fine - coarse == 2 else code + round(STEPS_AN_OCTAVE * octaves)
        if not coarse < code < fine:
            code = (coarse + fine) // 2


def _foretold(found: _Decomposition, allowed: float) -> int:
    """Return the code of the largest step that should do: what is dropped and what rounding costs, for every code."""
    crops, dim = found.directions.shape
    steps = _step_of(np.arange(MAX_CODE + 1))
    kept = _kept(found, steps)
    squares = np.square(found.norms)
    dropped = np.maximum(squares.sum() - np.concatenate([[0.0], np.cumsum(squares)]), 0.0)[kept]
    rounding = ROUNDING * (kept * (crops + dim) + dim) * steps**2 / 12.0
    return int(np.argmax([*(dropped + rounding <= 2.0 * allowed * max(crops, 1)), True][: MAX_CODE + 1]))


def _step_of(code: Any) -> Any:
    return LARGEST_STEP * 2.0 ** (-code / STEPS_AN_OCTAVE)


def _kept(found: _Decomposition, step: Any) -> Any:
    """How many components are worth their bits with this step."""
    least = step * math.sqrt(KEPT * sum(found.directions.shape))
    return len(found.norms) - np.searchsorted(found.norms[::-1], least)


def _rounded(found: _Decomposition, step: float) -> _Rounded:
    """Round with this step. Coefficients are solved for once more, so that they make up for the rounding of the rest.

    Numbers are in units of the step. No numbers of crops are made: all cosines follow from products with the rows.
    """
    crops = len(found.directions)
    rank = int(_kept(found, step))
    scales = _scales(np.array([math.sqrt(max(crops, 1)), *(found.norms[:rank] / step)]))
    units = np.exp2(scales / -2.0)
    mean = np.rint(found.mean / (step * units[0]))
    basis = _toward_zero(found.components[:rank] / units[1:, None])
    rows, middle = basis * units[1:, None], mean * units[0]
    gram, offset = rows @ rows.T, rows @ middle
    along = found.directions @ rows.T / step
    solved = np.linalg.solve(gram + RIDGE * np.eye(rank), (along - offset).T).T
    coefficients = np.rint(solved)
    products = found.directions @ middle / step + (coefficients * along).sum(axis=1)
    squares = middle @ middle + (coefficients * (2.0 * offset + coefficients @ gram)).sum(axis=1)
    cosine = step * products / np.sqrt(np.maximum(squares, 1e-300))
    block = EmbeddingBlock(scales, mean.astype(np.int64), np.ascontiguousarray(basis.T).astype(np.int64))
    return _Rounded(block, coefficients.astype(np.int64), float(1.0 - cosine.mean()) if crops else 0.0)


def _scales(norms: Floats) -> Ints:
    """Return half-octaves of norms, at least 0."""
    scales: Ints = np.clip(np.rint(2.0 * np.log2(norms)), 0, MAX_SCALE).astype(np.int64)
    return scales


def _toward_zero(numbers: Floats) -> Floats:
    """Round to integers, towards 0 where a number is close to a half: zeros take the fewest bits."""
    rounded: Floats = np.copysign(np.floor(np.abs(numbers) + (0.5 - DEAD_ZONE)), numbers)
    return rounded
