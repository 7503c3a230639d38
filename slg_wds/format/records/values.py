"""Probabilities <-> the stored numbers, in one of the codings float32, float16, log8 and none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError

CODINGS = ("float32", "float16", "log8", "none")

# Low precision may take a probability a little above 1. Further above, it is none.
OVER_ONE = 2.0**-10

_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "log8": np.dtype("u1"),
}
# The largest total variation between a crop's distribution and the one that is read back.
MAX_CODING_ERROR = 0.02
# The largest relative error of each coding, and the largest value that it stores as 0.
_RELATIVE = {"float32": 2.0**-24, "float16": 2.0**-11, "log8": 2.0 ** (1 / 32) - 1}
_ABSOLUTE = {"float32": 2.0**-150, "float16": 2.0**-25, "log8": 2.0 ** (-270 / 16)}
# Code 254 stands for 2**(-254/16). Below 2**(-270/16), half of that, 0 is nearer.
_LOG8_ZERO_ABOVE = 270.0
_LOG8: NDArray[np.float32] = np.exp2(np.arange(256) / -16.0).astype(np.float32)
_LOG8[255] = 0.0
_LOG8.flags.writeable = False


def value_dtype(coding: str) -> np.dtype[Any]:
    """Return the little-endian dtype of the stored numbers: <f4, <f2 or uint8."""
    return _DTYPES[coding]


def check_probabilities(value: NDArray[Any]) -> NDArray[np.float32]:
    """Return probabilities as float32 in [0, 1]. Raises RecordError for NaN, negative ones or any above 1 + 2**-10."""
    floats: NDArray[np.float32] = np.asarray(value, np.float32)
    if floats.size and not (floats.min() >= 0.0 and floats.max() <= 1.0 + OVER_ONE):
        raise RecordError(f"probabilities from {floats.min()} to {floats.max()} are not within [0, 1]")
    clipped: NDArray[np.float32] = np.minimum(floats, np.float32(1.0))
    # The bits of -0.0 would be out of order; the sum makes it 0.0.
    clipped += np.float32(0.0)
    return clipped


def encode_values(value: NDArray[Any], coding: str) -> NDArray[Any]:
    """Encode probabilities of any shape.

    Args:
        value: the probabilities.
        coding: float32, float16 or log8.

    Returns:
        The stored numbers, of the same shape: <f4, <f2 or uint8.

    Raises:
        RecordError: a value is no probability, or the coding stores none.
    """
    if coding not in _DTYPES:
        raise RecordError(f"no values are stored with coding {coding!r}")
    checked = check_probabilities(value)
    if coding == "log8":
        return _encode_log8(checked)
    return checked.astype(_DTYPES[coding])


def check_coding(value: NDArray[np.float32], stored: NDArray[Any], coding: str, full: bool) -> None:
    """Refuse a coding that moves too much probability between classes: very many small values may all round to 0.

    Args:
        value: float32 [M, k], the probabilities.
        stored: [M, k], what `encode_values` made of them.
        coding: the coding.
        full: whether a row holds all classes, so that a reader divides it by its sum.

    Raises:
        RecordError: the total variation of the worst crop is above MAX_CODING_ERROR.
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
    """Total variation between a crop's distribution and what is read back; all classes outside the top count as one."""
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
    """Decode stored numbers of any shape to float32 probabilities. Raises RecordError for one outside [0, 1]."""
    if coding == "log8":
        return _LOG8.take(stored)
    value = stored.astype(np.float32)
    if value.size and not (value.min() >= 0.0 and value.max() <= 1.0):
        raise RecordError(f"stored probabilities from {value.min()} to {value.max()} are not within [0, 1]")
    return value
