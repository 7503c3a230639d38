"""The exact sums that a shared tail is made from. Sets that can be extended keep them, as a column of each record."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.columns import decode_column, encode_column
from slg_wds.format.records.shape import unpack_fields

TAIL_SUMS = "outside"  # the column's name in a record


def encode_tail_sums(sums: NDArray[np.float64]) -> list[bytes]:
    """Encode one sum per class, float64 [C], as a column [2, C]: the lower, then the upper halves of their bits."""
    return encode_column(np.ascontiguousarray(sums, "<f8").view("<u4").reshape(-1, 2).T)


def decode_tail_sums(data: bytes) -> NDArray[np.float64] | None:
    """Read the sums of a record that has been decoded before.

    Args:
        data: the bytes of the record.

    Returns:
        float64 [C], for each class the sum over crops of its probability outside the top-k; None where the record
        has none.

    Raises:
        RecordError: the column is damaged, or a sum is negative or not finite.
    """
    fields = unpack_fields(data)
    planes: Any = fields["columns"].get(TAIL_SUMS)
    if planes is None:
        return None
    halves = decode_column(planes, (2, fields["num_classes"]), itemsize=4)
    sums = np.ascontiguousarray(halves.T).view("<f8")[:, 0]
    if not (np.isfinite(sums).all() and (sums >= 0).all()):
        raise RecordError("a sum of probabilities is not a number of at least 0", key=fields["key"])
    return sums.astype(np.float64)
