"""Checks of every record, when it is written and when it is read. All raise RecordError."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.canonical import brief
from slg_wds.format.records.embeddings.fields import EMBEDDING, EMBEDDINGS, embedding_kinds
from slg_wds.format.records.low_rank.blocks import AGAINST, LOW_RANK
from slg_wds.format.records.values import CODINGS
from slg_wds.format.records.views import read_view_field

MAX_TEXT_BYTES = 4096
# Limits of what a small file may unpack to, beside those of `shape.py`.
MAX_TOP = 1 << 24  # classes of all crops of a record; not for full labels
MAX_FULL_CLASSES = 1 << 20
MAX_KL = 1e4  # nats; -ln of the smallest probability of a binary64 is 745
MAX_PARENTS = 64  # label sets that low-rank labels were coded from

CHECKSUMS = ("image_crc32", "source_crc32")  # fields of a record that may be absent


def check_text(name: str, text: str) -> None:
    """Check that a key or path, called `name`, is text of 1 to 4096 bytes of UTF-8 without NUL."""
    if text.isascii() and 0 < len(text) <= MAX_TEXT_BYTES and "\0" not in text:
        return  # as nearly all are
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise RecordError(f"the {name} is not UTF-8") from None
    if not 0 < size <= MAX_TEXT_BYTES or "\0" in text:
        raise RecordError(f"the {name} is not text of 1 to {MAX_TEXT_BYTES} bytes without NUL")


def check_fields(fields: dict[str, Any]) -> None:
    """Check the fields of a record that are of its shape, and that they agree. Columns are not checked."""
    check_text("key", fields["key"])
    check_text("path", fields["path"])
    read_view_field(fields)
    coding = fields["coding"]
    if coding == LOW_RANK:
        _check_low_rank(fields)
    elif coding == EMBEDDING or EMBEDDINGS in fields:
        _check_embeddings(fields)
    else:
        _check_labels(fields)


def _check_labels(fields: dict[str, Any]) -> None:
    coding, full = fields["coding"], fields["full"]
    if coding not in CODINGS:
        raise RecordError(f"coding {brief(coding)} is unknown")
    k, classes = fields["k"], fields["num_classes"]
    if k < 1 or classes < 1:
        raise RecordError(f"{k} of {classes} classes are no labels")
    if not full and fields["num_crops"] * k > MAX_TOP:
        raise RecordError(f"{fields['num_crops']} crops of {k} classes are over the limit of {MAX_TOP}")
    if full and classes > MAX_FULL_CLASSES:
        raise RecordError(f"full labels of {classes} classes are over the limit of {MAX_FULL_CLASSES}")
    if full and (k != classes or coding == "none"):
        raise RecordError(f"full labels hold a value of every class, not {k} of {classes} as {coding!r}")
    if coding == "none" and k != 1:
        raise RecordError(f"labels without values hold one class, not {k}")
    if k + fields["num_tail"] > classes:
        raise RecordError(f"k {k} and a tail of {fields['num_tail']} do not fit in {classes} classes")
    if fields["num_palette"] > min(classes, fields["num_crops"] * k):
        raise RecordError(f"a palette of {fields['num_palette']} classes is more than there can be")


def _check_low_rank(fields: dict[str, Any]) -> None:
    if not fields["num_classes"]:
        raise RecordError("0 classes are no labels")
    if fields["full"] or fields["k"] or fields["num_palette"] or fields["num_tail"]:
        raise RecordError("low-rank labels are not full, and have neither top-k nor tail")
    parents = fields.get("kl_parents")
    if type(parents) is not list or len(parents) > MAX_PARENTS or fields.get("kl_against") not in AGAINST:
        raise RecordError("the low-rank labels do not say what they were coded from")
    stated = [fields.get("kl_mean"), fields.get("kl_worst"), *(kl for kl in parents if kl is not None)]
    if not all(type(kl) is float and 0.0 <= kl <= MAX_KL for kl in stated):
        raise RecordError(f"a KL divergence of low-rank labels is not within 0 to {MAX_KL:g}")


def _check_embeddings(fields: dict[str, Any]) -> None:
    labels = any(fields[name] for name in ("k", "num_classes", "num_palette", "num_tail"))
    if fields["coding"] != EMBEDDING or fields["full"] or labels:
        raise RecordError("a record of embeddings has neither classes nor tail")
    embedding_kinds(fields)


def check_boxes(boxes: NDArray[np.int64], size: tuple[int, int] | NDArray[np.int64]) -> None:
    """Check that every box has at least one pixel and lies within its image.

    Args:
        boxes: int64 [M, 4]: top, left, height, width.
        size: (height, width) of the image, or of each box's image, int64 [M, 2].
    """
    corner, extent = boxes[:, :2], boxes[:, 2:]
    if len(boxes) and (corner.min() < 0 or extent.min() < 1 or (corner + extent > size).any()):
        raise RecordError(
            "a box is not within the image"
            + (f" of {size[0]} x {size[1]}" if isinstance(size, tuple) else "")
        )


def check_distinct(index: NDArray[Any]) -> None:
    """Check that no class (or position in the palette) occurs twice in a row of [M, k]."""
    if index.shape[1] == 1:
        return
    ordered = np.sort(index, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise RecordError("a class occurs twice within a crop's top-k")


def check_falling(value: NDArray[np.float32]) -> None:
    """Check that no value in a row of [M, k] is larger than the one before it."""
    if (value[:, 1:] > value[:, :-1]).any():
        raise RecordError("probabilities rise within a crop's top-k")
