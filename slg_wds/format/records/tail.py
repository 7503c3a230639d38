"""The shared tail: one vector per image, the shape of the probability outside the top-k."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.values import OVER_ONE

SHARES: NDArray[np.float64] = np.exp2(np.arange(256) / -16.0)  # of a code, relative to the largest
SHARES[255] = 0.0
SHARES.flags.writeable = False


@dataclass(frozen=True, eq=False)
class Tail:
    """The m largest classes of an image's mean tail v, as stored; FORMAT.md, "The shared tail", defines it.

    Attributes:
        classes: int64 [m], ascending.
        codes: uint8 [m]; v of a class is scale * 2**(-code / 16), and 0 for code 255.
        scale: the largest v, a float32 number.
        rest: v of *each* of the other C - m classes, a float32 number.
    """

    classes: NDArray[np.int64]
    codes: NDArray[np.uint8]
    scale: float
    rest: float

    @cached_property
    def probs(self) -> NDArray[np.float32]:
        """The stored v of each kept class, float32 [m]."""
        return (SHARES[self.codes] * self.scale).astype(np.float32)


def most_kept(tail_classes: int, num_crops: int, k: int, num_classes: int) -> int:
    """Return the number of classes that a tail keeps: each takes four crops, and the top k of a crop are in no tail.

    Args:
        tail_classes: the most classes to keep.
        num_crops: number of crops of the image.
        k: classes stored for each crop.
        num_classes: classes of every distribution.
    """
    return max(0, min(tail_classes, num_crops // 4, num_classes - k))


def build_tail(v: NDArray[Any], tail_classes: int, num_crops: int, k: int) -> Tail | None:
    """Make the tail to store.

    It keeps the m largest classes, as many as `most_kept` says; of equal ones, the lower first.

    Args:
        v: [C], the mean over an image's crops of each class's probability outside the top-k.
        tail_classes: the most classes to keep.
        num_crops: number of crops of the image.
        k: classes stored for each crop.

    Returns:
        The tail; None if m is 0.

    Raises:
        RecordError: v is not one row of numbers in [0, 1].
    """
    v = np.asarray(v, np.float64)
    if v.ndim != 1 or not len(v) or not (v.min() >= 0.0 and v.max() <= 1.0 + OVER_ONE):
        raise RecordError("a mean tail is not one row of numbers within [0, 1]")
    m = most_kept(tail_classes, num_crops, k, len(v))
    if not m:
        return None
    classes = _largest(v, m)
    kept = v[classes]
    scale = float(np.float32(kept.max()))
    rest = max(0.0, float(v.sum() - kept.sum()) / (len(v) - m))
    return Tail(classes, _codes(kept, scale), scale, float(np.float32(rest)))


def _largest(v: NDArray[np.float64], m: int) -> NDArray[np.int64]:
    # A partition takes less time than a sort: C may be 100,000, and m is 64.
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
