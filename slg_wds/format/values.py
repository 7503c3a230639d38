"""Probabilities <-> the four codings of FORMAT.md: float32, float16, log8, none."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError

CODINGS = ("float32", "float16", "log8", "none")
DTYPES = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "log8": np.dtype("u1")}

# Softmax and averaging in low precision overshoot 1 a little; more than this is not a probability.
OVER_ONE = 2.0**-10

# Between code 254 and zero the nearer one is taken: below 2**(-270/16), half of code 254's value, it is zero.
_LOG8_ZERO_FROM = 270.0
_LOG8 = np.exp2(np.arange(256) / -16.0).astype(np.float32)
_LOG8[255] = 0.0
_LOG8.flags.writeable = False


def check_probabilities(value: NDArray[Any]) -> NDArray[np.float32]:
    """`value` as float32 within [0, 1]; not finite, negative or over 1 + 2**-10 is a RecordError."""
    value = np.asarray(value, np.float32)
    if value.size and not (value.min() >= 0.0 and value.max() <= 1.0 + OVER_ONE):
        raise RecordError(f"probabilities from {value.min()} to {value.max()} are not within [0, 1]")
    # The sum turns -0.0, which would break byte comparisons, into 0.0.
    return np.minimum(value, np.float32(1.0)) + np.float32(0.0)


def encode_values(value: NDArray[Any], coding: str) -> NDArray[Any]:
    """Probabilities of any shape as the numbers that are stored: <f4, <f2 or uint8 of the same shape."""
    checked = check_probabilities(value)
    if coding not in DTYPES:
        raise RecordError(f"no value is stored with coding {coding!r}")
    if coding == "log8":
        return _encode_log8(checked)
    return checked.astype(DTYPES[coding])


def _encode_log8(value: NDArray[np.float32]) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore"):
        exponent = np.log2(value, dtype=np.float64) * -16.0
    code = np.minimum(np.rint(exponent), 254.0)
    code[exponent > _LOG8_ZERO_FROM] = 255.0
    return code.astype(np.uint8)


def decode_values(stored: NDArray[Any], coding: str) -> NDArray[np.float32]:
    """Stored numbers of any shape as float32 probabilities of the same shape; RecordError if outside [0, 1]."""
    if coding == "log8":
        return _LOG8[stored]
    value = stored.astype(np.float32)
    if value.size and not (value.min() >= 0.0 and value.max() <= 1.0):
        raise RecordError(f"stored probabilities from {value.min()} to {value.max()} are not within [0, 1]")
    return value


def quantise(value: NDArray[Any], coding: str) -> NDArray[np.float32]:
    """Probabilities of any shape as a reader will see them after `coding`; "none" reads as ones."""
    if coding == "none":
        return np.ones(np.shape(value), np.float32)
    return decode_values(encode_values(value, coding), coding)
