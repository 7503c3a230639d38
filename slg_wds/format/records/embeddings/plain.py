"""The embeddings of crops as rows of numbers: arrays, and what rounding may do to them.

Shapes: M crops of a record, D numbers of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import F32
from slg_wds.errors import RecordError
from slg_wds.format.records.embeddings.cosines import cosines

# How each number is stored. "lowrank" is no such way: it codes the embeddings of a record together.
EMBEDDING_VALUES = ("float32", "float16", "int8")
LEAST_COSINE = 0.99  # between an embedding and what is read back
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}
_LARGEST_CODE = 127
_LARGEST_SCALE = np.float32(2.0**120)  # so that no product with a code overflows


@dataclass(frozen=True, eq=False)
class Embedding:
    """What one teacher gave for the crops of a record, as it is stored.

    Attributes:
        stored: float32, float16 or int8 [M, D]. If int8, a number is its code times the scale of its crop.
        scales: float32 [M], of int8 codes; else None.
    """

    stored: NDArray[Any]
    scales: F32 | None = None

    @classmethod
    def of(cls, vectors: NDArray[Any], values: str) -> Embedding:
        """Code embeddings.

        Args:
            vectors: [M, D], finite numbers.
            values: one of EMBEDDING_VALUES. int8 rounds to 127 steps of the largest magnitude of the crop.

        Raises:
            RecordError: a number is not finite or too large, or the coding changes the direction of an embedding.
        """
        if values not in EMBEDDING_VALUES:
            raise RecordError(f"embeddings are not stored as {values!r}")
        exact = exact_embeddings(vectors)
        coded = _as_int8(exact) if values == "int8" else cls(_as_floats(exact, DTYPES[values]))
        coded._check_direction(exact)
        return coded

    @property
    def values(self) -> str:
        """How numbers are stored, one of EMBEDDING_VALUES."""
        return str(self.stored.dtype.name)

    @property
    def dim(self) -> int:
        """Numbers of each crop, D."""
        return int(self.stored.shape[1])

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, crops: Any) -> Embedding:
        """Return the embeddings of some crops; `crops` is an index into the first axis."""
        return Embedding(self.stored[crops], None if self.scales is None else self.scales[crops])

    @property
    def vectors(self) -> F32:
        """The numbers that a reader sees, float32 [M, D]."""
        return scaled(self.stored, self.scales)

    def _check_direction(self, exact: F32) -> None:
        worst = float(cosines(exact, self.vectors).min(initial=1.0))
        if worst < LEAST_COSINE:
            raise RecordError(
                f"with values {self.values}, the cosine between the embedding of a crop and what is read back would "
                f"be {worst:.4f} (at least {LEAST_COSINE} is required)",
                hint=f"choose --values {'float16' if self.values == 'int8' else 'float32'}",
            )


def exact_embeddings(vectors: NDArray[Any]) -> F32:
    """Return embeddings [M, D] as float32. Raises RecordError unless they are finite numbers."""
    exact: F32 = np.asarray(vectors, np.float32)
    if exact.ndim != 2 or not exact.shape[1] or not np.isfinite(exact).all():
        raise RecordError(f"embeddings of shape {exact.shape} are not finite numbers [crops, D]")
    return exact


def _as_floats(exact: F32, dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        stored: NDArray[Any] = exact.astype(dtype)
    if not np.isfinite(stored).all():
        raise RecordError(
            f"a number of an embedding is too large for {dtype.name}: {float(np.abs(exact).max()):g}",
            hint="choose --values float32 or int8",
        )
    return stored


def _as_int8(exact: F32) -> Embedding:
    scales: F32 = (np.abs(exact).max(axis=1, initial=0.0) / np.float32(_LARGEST_CODE)).astype(np.float32)
    if scales.size and scales.max() > _LARGEST_SCALE:
        raise RecordError(
            f"a number of an embedding is too large for int8: {float(np.abs(exact).max()):g}",
            hint="choose --values float32",
        )
    steps = np.where(scales > 0, scales, np.float32(1)).astype(np.float64)
    codes = np.rint(exact / steps[:, None])
    return Embedding(np.clip(codes, -_LARGEST_CODE, _LARGEST_CODE).astype(np.int8), scales)


def scaled(stored: NDArray[Any], scales: F32 | None) -> F32:
    """Return the numbers of stored embeddings, float32 [..., D].

    Args:
        stored: float32, float16 or int8 [..., D].
        scales: float32 [...], of int8 codes; else None.
    """
    numbers: F32 = stored.astype(np.float32)
    if scales is not None:
        numbers *= scales[..., None]
    return numbers


def check_numbers(stored: NDArray[Any], scales: F32 | None) -> None:
    """Check that stored numbers are finite, codes at least -127, and scales from 0 to 2^120. Raises RecordError."""
    if scales is None:
        if not np.isfinite(stored).all():
            raise RecordError("a number of an embedding is not finite")
        return
    if stored.size and stored.min() < -_LARGEST_CODE:
        raise RecordError("a code of an embedding is -128")
    if scales.size and not (scales.min() >= 0.0 and scales.max() <= _LARGEST_SCALE):
        raise RecordError("the scale of an embedding is not a number from 0 to 2^120")
