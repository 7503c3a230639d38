"""The sum that a shared tail is made from, kept by sets that can be extended: float64 [C] <-> a record's column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.packed import unpack
from slg_wds.format.records.columns import decode_column, encode_column

OUTSIDE = "outside"


def encode_outside(outside: NDArray[np.float64]) -> list[bytes]:
    """The column [2, C] of the lower, then the upper halves of the numbers' bits."""
    return encode_column(np.ascontiguousarray(outside, "<f8").view("<u4").reshape(-1, 2).T)


def decode_outside(data: bytes) -> NDArray[np.float64] | None:
    """The sum of a record, from the bytes of one that decodes; None where it keeps none. Raises RecordError."""
    fields = unpack(data)
    planes: Any = fields["columns"].get(OUTSIDE)
    if planes is None:
        return None
    halves = decode_column(planes, (2, fields["num_classes"]), itemsize=4)
    outside = np.ascontiguousarray(halves.T).view("<f8")[:, 0]
    if not (np.isfinite(outside).all() and (outside >= 0).all()):
        raise RecordError("a sum of probabilities is not a number of at least 0", key=fields["key"])
    return outside.astype(np.float64)
