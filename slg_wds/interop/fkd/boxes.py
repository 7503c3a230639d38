"""Relative coordinates of FKD <-> boxes in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import LabelFileError


@dataclass(frozen=True, eq=False)
class CutBoxes:
    """Boxes as FKD's reader cuts them.

    boxes: int64 [M, 4] of top, left, height, width, within the image. inexact: bool [M], where the box that the
    teacher saw cannot be told from the coordinates (rounded to float16, or of an image of another size). clamped:
    bool [M], where the reader's box reaches out of the image; it paints that black, `boxes` leave it out.
    """

    boxes: NDArray[np.int64]
    inexact: NDArray[np.bool_]
    clamped: NDArray[np.bool_]


def cut_boxes(coords: NDArray[Any], size: tuple[int, int]) -> CutBoxes:
    """The boxes that FKD's reader cuts from an image of (height, width) pixels.

    It multiplies in Python floats, and Pillow's crop rounds each edge, halves to even: the height is the difference
    of two rounded edges, not the rounded height. Raises LabelFileError for a box without a pixel.
    """
    cut = _edges(coords, size)
    inside = np.clip(cut, 0, np.array([*size, *size], np.float64))
    for edges in (cut, inside):
        edges[:, 2:] -= edges[:, :2]
    if not (inside[:, 2:] >= 1).all():
        row = int((inside[:, 2:] < 1).any(axis=1).argmax())
        raise LabelFileError(f"crop {row} at {coords[row].tolist()} has no pixel of {size[0]} x {size[1]}")
    sure = relative(cut, size, coords.dtype) == coords
    for step in (-1, 1):  # two whole numbers that round to the same coordinate: which was it?
        sure &= relative(cut + step, size, coords.dtype) != coords
    return CutBoxes(inside.astype(np.int64), ~sure.all(axis=1), (inside != cut).any(axis=1))


def relative(boxes: NDArray[Any], size: tuple[int, int], dtype: Any = np.float32) -> NDArray[Any]:
    """Boxes [M, 4] as the original writes them: divided in Python floats, then float32, then maybe float16."""
    parts: NDArray[np.float64] = boxes / np.array([*size, *size], np.float64)
    return parts.astype(np.float32).astype(dtype)


def exact_coords(
    boxes: NDArray[np.int64], size: tuple[int, int], half: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Coordinates, float32 or with `half` float16 [M, 4], of which FKD's reader cuts just these boxes.

    float16 may round an edge to the next pixel; then a neighbouring height or width is taken if that mends it. The
    second result, bool [M], says which boxes come out exactly; always all of float32.
    """
    coords = relative(boxes, size, np.float16 if half else np.float32)
    exact: NDArray[np.bool_] = (_edges(coords, size) == _wanted(boxes)).all(axis=1)
    for direction in (np.inf, -np.inf):
        if exact.all():
            break
        moved = coords.copy()
        wrong = _edges(coords, size) != _wanted(boxes)
        step = np.nextafter(moved[:, 2:], moved.dtype.type(direction))
        moved[:, 2:] = np.where(wrong[:, 2:], np.minimum(step, moved.dtype.type(1)), moved[:, 2:])
        mended = (_edges(moved, size) == _wanted(boxes)) & wrong
        coords[:, 2:] = np.where(mended[:, 2:], moved[:, 2:], coords[:, 2:])
        exact = (_edges(coords, size) == _wanted(boxes)).all(axis=1)
    return coords, exact


def _wanted(boxes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float64)


def _edges(coords: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """Top, left, bottom and right as Pillow's crop rounds them, [M, 4]."""
    parts = coords.astype(np.float64) * np.array([*size, *size], np.float64)
    edges: NDArray[np.float64] = np.rint(np.concatenate([parts[:, :2], parts[:, :2] + parts[:, 2:]], axis=1))
    return edges
