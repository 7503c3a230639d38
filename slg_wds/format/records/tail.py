"""The shared tail: one vector per image that says how the probability outside the top-k is spread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.values import OVER_ONE


@dataclass(frozen=True, eq=False)
class Tail:
    """The m largest classes of an image's mean tail, as stored.

    classes: int64 [m], ascending. codes: uint8 [m], v = scale * 2**(-code/16), 255 for 0.
    scale: the largest v. rest: the share of *each* of the other C - m classes. Both hold float32 numbers.
    """

    classes: NDArray[np.int64]
    codes: NDArray[np.uint8]
    scale: float
    rest: float

    @cached_property
    def probs(self) -> NDArray[np.float32]:
        """v of each class as stored, float32 [m]."""
        value = np.exp2(self.codes / -16.0) * self.scale
        value[self.codes == 255] = 0.0
        return value.astype(np.float32)


def build_tail(v: NDArray[Any], tail_classes: int, num_crops: int, k: int) -> Tail | None:
    """The tail to store for v, the mean over an image's crops of the probability outside the top-k, [C].

    Keeps m = min(tail_classes, num_crops // 4, C - k) classes, ties to the lower one; None where m is 0.
    Raises RecordError where v is not one row of numbers within [0, 1].
    """
    v = np.asarray(v, np.float64)
    if v.ndim != 1 or not len(v) or not (v.min() >= 0.0 and v.max() <= 1.0 + OVER_ONE):
        raise RecordError("a mean tail is not one row of numbers within [0, 1]")
    m = min(tail_classes, num_crops // 4, len(v) - k)
    if m <= 0:
        return None
    classes = _largest(v, m)
    kept = v[classes]
    scale = float(np.float32(kept.max()))
    rest = max(0.0, float(v.sum() - kept.sum()) / (len(v) - m))
    return Tail(classes, _codes(kept, scale), scale, float(np.float32(rest)))


def _largest(v: NDArray[np.float64], m: int) -> NDArray[np.int64]:
    # A partition, not a sort: C may be 100,000 and m is 64.
    least = np.partition(v, len(v) - m)[len(v) - m]
    above = np.flatnonzero(v > least)
    level = np.flatnonzero(v == least)[: m - len(above)]
    return np.sort(np.concatenate([above, level]))


def _codes(kept: NDArray[np.float64], scale: float) -> NDArray[np.uint8]:
    codes = np.full(len(kept), 255, np.uint8)
    some = kept > 0.0
    if scale > 0.0:
        codes[some] = np.clip(np.rint(-16.0 * np.log2(kept[some] / scale)), 0.0, 254.0).astype(np.uint8)
    return codes
