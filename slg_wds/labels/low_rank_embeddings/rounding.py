"""A mean and components of directions -> the integers of low-rank embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.arrays import F64, I64
from slg_wds.format.records.embeddings.low_rank import MAX_RANK, MAX_SCALE, EmbeddingBlock
from slg_wds.labels.dead_zone import round_toward_zero
from slg_wds.labels.low_rank_embeddings.decomposition import DirectionComponents, Floats

LARGEST_STEP, STEPS_AN_OCTAVE, MAX_CODE = 4.0, 64, 64 * 24
KEPT = 0.2  # a component is kept if its numbers have a mean square above so many squares of the step
DEAD_ZONE = 0.15  # of a step, for numbers of the basis
RIDGE = 1e-9


@dataclass(frozen=True, eq=False)
class RoundedDirections:
    """The integers of a block with one step.

    Attributes:
        block: what the crops share.
        coefficients: int64 [m, r].
        shared: the components that are not of single crops.
        lost: float64 [m], 1 - the cosine of each crop, as far as it is known without the numbers of a reader.
    """

    block: EmbeddingBlock
    coefficients: I64
    shared: int
    lost: F64

    @property
    def mean_lost(self) -> float:
        """1 - the mean cosine."""
        return float(self.lost.mean()) if len(self.lost) else 0.0


def step_of(code: Any) -> Any:
    """Return the step that a code, 0 to MAX_CODE, stands for."""
    return LARGEST_STEP * 2.0 ** (-code / STEPS_AN_OCTAVE)


def kept(found: DirectionComponents, step: Any) -> Any:
    """Return how many components are worth their bits with this step."""
    least = step * math.sqrt(KEPT * sum(found.directions.shape))
    return len(found.norms) - np.searchsorted(found.norms[::-1], least)


def rounded(found: DirectionComponents, code: int) -> RoundedDirections:
    """Round with the step of a code.

    Coefficients are solved for once more, so that they make up for the rounding of the rest. Numbers are in units of
    the step. The embeddings of crops are not put together again: their cosines follow from products with the rows.
    Products with directions have the precision of the directions; what is computed from them is float64.
    """
    step, crops, dtype = float(step_of(code)), len(found.directions), found.directions.dtype
    shared = min(int(kept(found, step)), MAX_RANK - len(found.extra.rows))
    components = found.components(shared)
    norms = np.maximum(components.norms / step, 1.0 / components.coarsest)
    scales = _scales(np.array([math.sqrt(max(crops, 1)), *norms]))
    units = np.exp2(scales / -2.0).astype(dtype)
    mean = np.rint(found.mean / (step * units[0]))
    basis = round_toward_zero(components.rows / units[1:, None], DEAD_ZONE)
    rows, middle = basis * units[1:, None], mean * units[0]
    gram, offset = _exact(rows @ rows.T), _exact(rows @ middle)
    along = _exact(found.directions @ rows.T) / step
    solved = np.linalg.solve(gram + RIDGE * np.eye(len(gram)), (along - offset).T).T
    coefficients = np.rint(solved)
    products = _exact(found.directions @ middle) / step + (coefficients * along).sum(axis=1)
    squares = float(_exact(middle) @ _exact(middle))
    squares += (coefficients * (2.0 * offset + coefficients @ gram)).sum(axis=1)
    lost = 1.0 - step * products / np.sqrt(np.maximum(squares, 1e-300))
    block = EmbeddingBlock(scales, mean.astype(np.int64), np.ascontiguousarray(basis.T).astype(np.int64))
    return RoundedDirections(block, coefficients.astype(np.int64), shared, lost)


def _exact(numbers: Floats) -> F64:
    return numbers.astype(np.float64)


def _scales(norms: F64) -> I64:
    """Return half-octaves of norms, at least 0."""
    scales: I64 = np.clip(np.rint(2.0 * np.log2(norms)), 0, MAX_SCALE).astype(np.int64)
    return scales
