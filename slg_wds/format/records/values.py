"""Probabilities <-> what is stored of them: float32, float16, log8, none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError

CODINGS = ("float32", "float16", "log8", "none")

# Sums in low precision overshoot 1 a little; what is further above is not a probability.
OVER_ONE = 2.0**-10

_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "log8": np.dtype("u1"),
}
# How far a crop's distribution may be, in total variation, from the one that is read back.
MAX_CODING_ERROR = 0.02
# Of each coding: how far off a value is at most, as a part of it, and what is left of values too small for it.
_RELATIVE = {"float32": 2.0**-24, "float16": 2.0**-11, "log8": 2.0 ** (1 / 32) - 1}
_ABSOLUTE = {"float32": 2.0**-150, "float16": 2.0**-25, "log8": 2.0 ** (-270 / 16)}
# Below 2**(-270/16), half of what code 254 stands for, zero is nearer.
_LOG8_ZERO_ABOVE = 270.0
_LOG8: NDArray[np.float32] = np.exp2(np.arange(256) / -16.0).astype(np.float32)
_LOG8[255] = 0.0
_LOG8.flags.writeable = False


def value_dtype(coding: str) -> np.dtype[Any]:
    """The little-endian dtype that a coding stores: <f4, <f2 or uint8."""
    return _DTYPES[coding]


def check_probabilities(value: NDArray[Any]) -> NDArray[np.float32]:
    """`value` as float32 within [0, 1]; NaN, negative or over 1 + 2**-10 is a RecordError."""
    floats: NDArray[np.float32] = np.asarray(value, np.float32)
    if floats.size and not (floats.min() >= 0.0 and floats.max() <= 1.0 + OVER_ONE):
        raise RecordError(f"probabilities from {floats.min()} to {floats.max()} are not within [0, 1]")
    clipped: NDArray[np.float32] = np.minimum(floats, np.float32(1.0))
    # -0.0 would break the order of bit patterns; the sum makes it 0.0.
    clipped += np.float32(0.0)
    return clipped


def encode_values(value: NDArray[Any], coding: str) -> NDArray[Any]:
    """Probabilities of any shape as stored: <f4, <f2 or uint8 of the same shape.

    Raises RecordError for what is not a probability and for a coding that stores no values.
    """
    if coding not in _DTYPES:
        raise RecordError(f"no values are stored with coding {coding!r}")
    checked = check_probabilities(value)
    if coding == "log8":
        return _encode_log8(checked)
    return checked.astype(_DTYPES[coding])


def check_coding(value: NDArray[np.float32], stored: NDArray[Any], coding: str, full: bool) -> None:
    """Refuse a coding that moves too much of a crop's probability: very many small values may round to nothing.

    Args:
        value: float32 [M, k], the probabilities.
        stored: [M, k], what `encode_values` made of them.
        full: whether a row holds all classes, so that a reader divides it by its sum.

    Raises RecordError with the total variation of the worst crop, where it is above MAX_CODING_ERROR.
    """
    k = value.shape[1]
    if not value.size or _RELATIVE[coding] / 2 + k * _ABSOLUTE[coding] <= MAX_CODING_ERROR:
        return
    error = max(
        _variation(row.astype(np.float64), decode_values(code, coding).astype(np.float64), full)
        for row, code in zip(value, stored, strict=True)
    )
    if error > MAX_CODING_ERROR:
        raise RecordError(
            f"with values {coding}, {error:.1%} of a crop's probability would come to lie on other classes "
            f"(at most {MAX_CODING_ERROR:.0%} may): most of its {k} values are too small for it",
            hint=f"choose --values {'float16' if coding == 'log8' else 'float32'}",
        )


def _variation(exact: NDArray[np.float64], read: NDArray[np.float64], full: bool) -> float:
    """Total variation of one crop's distribution from what is read back; the classes outside count as one."""
    if full:
        exact, read = (row / max(row.sum(), np.finfo(np.float64).tiny) for row in (exact, read))
    others = max(0.0, 1.0 - float(exact.sum())) - max(0.0, 1.0 - float(read.sum()))
    return (float(np.abs(exact - read).sum()) + (0.0 if full else abs(others))) / 2


def _encode_log8(value: NDArray[np.float32]) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore"):
        exponent = np.log2(value, dtype=np.float64) * -16.0
    code = np.minimum(np.rint(exponent), 254.0)
    code[exponent > _LOG8_ZERO_ABOVE] = 255.0
    return code.astype(np.uint8)


def decode_values(stored: NDArray[Any], coding: str) -> NDArray[np.float32]:
    """What is stored, of any shape, as float32 probabilities. RecordError if outside [0, 1]."""
    if coding == "log8":
        return _LOG8.take(stored)
    value = stored.astype(np.float32)
    if value.size and not (value.min() >= 0.0 and value.max() <= 1.0):
        raise RecordError(f"stored probabilities from {value.min()} to {value.max()} are not within [0, 1]")
    return value


def quantise(value: NDArray[Any], coding: str) -> NDArray[np.float32]:
    """Probabilities of any shape as a reader will see them after `coding`; "none" reads as ones."""
    if coding == "none":
        return np.ones(np.shape(value), np.float32)
    return decode_values(encode_values(value, coding), coding)
