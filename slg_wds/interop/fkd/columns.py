"""Label arrays as FKD stores them <-> columns of classes and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import LabelFileError, UsageError
from slg_wds.labels import LabelType, parse_label_type

FP16_WHOLE = 2048  # float16 holds every whole number up to this one exactly
OVER_ONE = 2.0**-10  # by which a probability may exceed 1, from rounding; records allow the same
SUM_OVER_ONE = 2.0**-6  # by which a sum of many float16 probabilities may exceed 1


@dataclass(frozen=True, eq=False)
class Columns:
    """The labels of one image.

    Attributes:
        index: int64 [M, k], the classes of each crop.
        value: float32 [M, k], their probabilities; ones for hard labels.
    """

    index: NDArray[np.int64]
    value: NDArray[np.float32]


def found_type(labels: NDArray[Any], num_classes: int) -> LabelType:
    """Find the label type of an array by its shape.

    marginal_renorm is stored exactly as marginal_smoothing is, so it is found as that.

    Args:
        labels: the array, one row per crop.
        num_classes: C.

    Raises:
        LabelFileError: no label type has this shape, or two have it.
    """
    shape = labels.shape
    if labels.ndim == 1:
        return LabelType("hard")
    if labels.ndim == 3 and shape[1] == 2 and 1 <= shape[2] <= num_classes:
        return LabelType("marginal_smoothing", shape[2])
    if labels.ndim == 2 and shape[1] == 2 and num_classes != 2:
        return LabelType("smoothing")
    if labels.ndim == 2 and shape[1] == num_classes != 2:
        return LabelType("full")
    if shape[1:] == (2,):
        raise LabelFileError(
            "labels [M, 2] of two classes may be smoothing or full", hint="give --label-type"
        )
    raise LabelFileError(
        f"no label type over {num_classes} classes has labels of shape {list(shape)}",
        hint=f"give --num-classes if there are not {num_classes}",
    )


def asked_type(name: str, labels: NDArray[Any], num_classes: int) -> LabelType:
    """Return the label type that was asked for, if the labels have its shape.

    Args:
        name: the label type. marginal_* without k takes the k of the labels.
        labels: the array, one row per crop.
        num_classes: C.

    Raises:
        UsageError: label files cannot have this type.
        LabelFileError: the labels have another shape.
    """
    asked = parse_label_type(name)
    if asked.kind == "shared_tail":
        raise UsageError(f"--label-type {name} is not possible: label files of FKD have no shared tail")
    if asked.kind.startswith("marginal") and asked.k is None and labels.ndim == 3:
        asked = LabelType(asked.kind, labels.shape[2])
    if labels.shape[1:] != _shape(asked, num_classes):
        raise LabelFileError(
            f"labels of shape {list(labels.shape)} are not {asked} over {num_classes} classes"
        )
    return asked


def _shape(label: LabelType, num_classes: int) -> tuple[int, ...]:
    """Return the shape of the labels of one crop."""
    shapes: dict[str, tuple[int, ...]] = {"hard": (), "smoothing": (2,), "full": (num_classes,)}
    return shapes.get(label.kind, (2, label.k or 0))


def columns_of(labels: NDArray[Any], label: LabelType, num_classes: int) -> Columns:
    """Convert the labels of a file to columns.

    Args:
        labels: the array, one row per crop.
        label: its label type.
        num_classes: C.

    Raises:
        LabelFileError: a number is no class below C, or no probability.
    """
    M = len(labels)
    if label.kind == "full":
        value = _probabilities(labels)
        return Columns(np.broadcast_to(np.arange(num_classes), (M, num_classes)), value)
    if label.kind == "hard":
        return Columns(_classes(labels.reshape(M, 1), num_classes), np.ones((M, 1), np.float32))
    pairs = labels.reshape(M, 2, -1)
    hint = (
        "give --num-classes 2 if these are the probabilities of two classes"
        if label.kind == "smoothing"
        else None
    )
    return Columns(_classes(pairs[:, 0], num_classes, hint), _probabilities(pairs[:, 1]))


def _classes(stored: NDArray[Any], num_classes: int, hint: str | None = None) -> NDArray[np.int64]:
    if not np.isfinite(stored).all():
        raise LabelFileError("a class index is not finite")
    index = stored.astype(np.int64)
    if (index != stored).any():
        row = int((index != stored).any(axis=1).argmax())
        raise LabelFileError(
            f"crop {row}: class indices {stored[row].tolist()} are not whole numbers", hint=hint
        )
    if index.min() < 0 or index.max() >= num_classes:
        raise LabelFileError(
            f"class index {index.max() if index.min() >= 0 else index.min()} is outside the {num_classes} classes",
            hint="give --num-classes if there are more",
        )
    if stored.dtype == np.float16 and num_classes > FP16_WHOLE + 1 and index.max() >= FP16_WHOLE:
        raise LabelFileError(
            f"class index {index.max()} may be rounded: float16 holds whole numbers exactly only up to {FP16_WHOLE}"
        )
    return index


def _probabilities(stored: NDArray[Any]) -> NDArray[np.float32]:
    value: NDArray[np.float32] = stored.astype(np.float32)
    if not np.isfinite(value).all():
        raise LabelFileError("a probability is not finite")
    if value.min() < 0.0 or value.max() > 1.0 + OVER_ONE:
        raise LabelFileError(f"probabilities from {value.min()} to {value.max()} are not within [0, 1]")
    total = value.sum(axis=1, dtype=np.float64)
    if total.max() > 1.0 + SUM_OVER_ONE:
        row = int(total.argmax())
        raise LabelFileError(f"crop {row}: its probabilities sum to {total[row]:.4f}, above 1")
    return value


def stored_labels(columns: Columns, label: LabelType, half: bool) -> NDArray[Any]:
    """Convert columns to the array that the original would write.

    Args:
        columns: the labels.
        label: their label type.
        half: whether to write float16, as with --use_fp16.

    Returns:
        int64 [M] for hard labels; else float32: [M, 2] for smoothing, [M, 2, k] for marginal types, [M, C] for full.
        With `half` all of these are float16.
    """
    index, value = columns.index, columns.value
    if label.kind == "hard":
        array: NDArray[Any] = np.ascontiguousarray(index[:, 0])
    elif label.kind == "full":
        array = value
    elif label.kind == "smoothing":
        array = np.stack([index[:, 0].astype(np.float32), value[:, 0]], axis=1)
    else:
        array = np.stack([index.astype(np.float32), value], axis=1)
    return array.astype(np.float16) if half else array
