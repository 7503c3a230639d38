"""The size and interpolation that crops are replayed with, and the memory that a label set may ask for."""

from __future__ import annotations

from typing import NamedTuple

from slg_wds.errors import UsageError
from slg_wds.replay.sources.label_sets import LabelSets
from slg_wds.transforms.crops import INTERPOLATIONS

MAX_BATCH_BYTES = 4 << 30  # of one batch, as far as the label set and not the caller decides
LABEL_BYTES = 12  # of one class of a crop in a batch: int64 and float32


class CropInput(NamedTuple):
    """The pixels that a crop is resized to.

    Attributes:
        size: pixels on each side.
        interpolation: the name of the filter, one of INTERPOLATIONS.
    """

    size: int
    interpolation: str


def crop_input(sets: LabelSets, size: int | None, interpolation: str | None, crops: int) -> CropInput:
    """Return how crops are resized: as is given, else as for the first teacher.

    Args:
        sets: the label sets.
        size: pixels on each side; None for the teacher's.
        interpolation: one of INTERPOLATIONS; None for the teacher's.
        crops: of a batch.

    Raises:
        UsageError: nothing says the size or interpolation, it cannot be, or a batch would take much memory although
            only the label set asks for it.
    """
    teachers = sets.members[0].identity.teachers or [{}]
    teachers_size = int(teachers[0].get("input_size") or 0) if size is None else 0
    k = max(one.identity.k or one.num_classes for one in sets.members)
    width = sum(one["dim"] for one in sets.members[0].identity.embeddings or [])
    what = f"crops of {teachers_size} pixels"
    _check_memory(sets, crops, 3 * teachers_size**2, what, f"pass size={teachers_size}")
    _check_memory(sets, crops, LABEL_BYTES * k, f"labels of {k} classes a crop", "have smaller batches")
    _check_memory(sets, crops, 4 * width, f"embeddings of {width} numbers a crop", "have smaller batches")
    size = teachers_size or size
    interpolation = teachers[0].get("interpolation") if interpolation is None else interpolation
    if size is None or interpolation is None:
        raise UsageError(
            "the label set does not say what its teacher saw",
            url=sets.url,
            hint="pass size= and interpolation=",
        )
    if size < 1 or interpolation not in INTERPOLATIONS:
        raise UsageError(f"crops of size {size}, {interpolation}", hint=f"one of {', '.join(INTERPOLATIONS)}")
    return CropInput(int(size), str(interpolation))


def _check_memory(sets: LabelSets, crops: int, each: int, what: str, hint: str) -> None:
    """Raise UsageError if a batch of `crops` crops, of `each` bytes, is larger than a label set may ask for."""
    if crops * each > MAX_BATCH_BYTES:
        raise UsageError(
            f"the label set asks for {what}: a batch of {crops} would take {crops * each / 1e9:.1f} GB",
            url=sets.url,
            hint=f"{hint} if that is meant",
        )
