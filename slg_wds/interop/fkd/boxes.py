"""Relative coordinates of FKD <-> boxes in pixels.

A coordinate is a share of the image's height or width. A box is top, left, height, width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import LabelFileError

LARGE = (10_000, 10_000)  # height and width of an image of which no box that has any size is empty


@dataclass(frozen=True, eq=False)
class CutBoxes:
    """Boxes as FKD's reader cuts them.

    Attributes:
        boxes: int64 [M, 4] of top, left, height, width in pixels, inside the image.
        inexact: bool [M], whether the teacher may have seen another box: the coordinates are rounded to float16, or the
            image had another size.
        clamped: bool [M], whether the reader's box reaches out of the image. The reader paints that part black; `boxes`
            leave it out.
    """

    boxes: NDArray[np.int64]
    inexact: NDArray[np.bool_]
    clamped: NDArray[np.bool_]


def cut_boxes(coords: NDArray[Any], size: tuple[int, int]) -> CutBoxes:
    """Return the boxes that FKD's reader cuts from an image.

    The reader multiplies in Python floats. Pillow's crop then rounds each edge, halves to even, so a height is the
    difference of two rounded edges and not a rounded height.

    Args:
        coords: float32 or float16 [M, 4] of top, left, height, width as shares of the image.
        size: (height, width) of the image in pixels.

    Raises:
        LabelFileError: a box has no pixel in the image.
    """
    cut = _reader_edges(coords, size)
    inside = np.clip(cut, 0, np.array([*size, *size], np.float64))
    for edges in (cut, inside):
        edges[:, 2:] -= edges[:, :2]
    if not (inside[:, 2:] >= 1).all():
        row = int((inside[:, 2:] < 1).any(axis=1).argmax())
        raise LabelFileError(f"crop {row} at {coords[row].tolist()} has no pixel of {size[0]} x {size[1]}")
    sure = relative(cut, size, coords.dtype) == coords
    for step in (-1, 1):  # if the next pixel has the same coordinate, either may have been meant
        sure &= relative(cut + step, size, coords.dtype) != coords
    return CutBoxes(inside.astype(np.int64), ~sure.all(axis=1), (inside != cut).any(axis=1))


def relative(boxes: NDArray[Any], size: tuple[int, int], dtype: Any = np.float32) -> NDArray[Any]:
    """Return boxes as the original writes them: divided in Python floats, then stored as float32 or float16.

    Args:
        boxes: int64 [M, 4] in pixels.
        size: (height, width) of the image in pixels.
        dtype: of the result, [M, 4].
    """
    parts: NDArray[np.float64] = boxes / np.array([*size, *size], np.float64)
    return parts.astype(np.float32).astype(dtype)


def exact_coords(
    boxes: NDArray[np.int64], size: tuple[int, int], half: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return coordinates from which FKD's reader cuts exactly these boxes, where that is possible.

    float16 may move an edge to the next pixel. Then the next smaller or larger height or width is tried.

    Args:
        boxes: int64 [M, 4] in pixels.
        size: (height, width) of the image in pixels.
        half: whether to return float16 instead of float32.

    Returns:
        Coordinates [M, 4], and bool [M], whether the reader cuts exactly that box. It always does with float32.
    """
    coords = relative(boxes, size, np.float16 if half else np.float32)
    exact: NDArray[np.bool_] = (_reader_edges(coords, size) == _box_edges(boxes)).all(axis=1)
    for direction in (np.inf, -np.inf):
        if exact.all():
            break
        moved = coords.copy()
        wrong = _reader_edges(coords, size) != _box_edges(boxes)
        step = np.nextafter(moved[:, 2:], moved.dtype.type(direction))
        moved[:, 2:] = np.where(wrong[:, 2:], np.minimum(step, moved.dtype.type(1)), moved[:, 2:])
        mended = (_reader_edges(moved, size) == _box_edges(boxes)) & wrong
        coords[:, 2:] = np.where(mended[:, 2:], moved[:, 2:], coords[:, 2:])
        exact = (_reader_edges(coords, size) == _box_edges(boxes)).all(axis=1)
    return coords, exact


def _box_edges(boxes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).astype(np.float64)


def _reader_edges(coords: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return top, left, bottom and right in pixels as Pillow's crop rounds them, float64 [M, 4]."""
    parts = coords.astype(np.float64) * np.array([*size, *size], np.float64)
    edges: NDArray[np.float64] = np.rint(np.concatenate([parts[:, :2], parts[:, :2] + parts[:, 2:]], axis=1))
    return edges
