"""A view on which operations work: its pixels in Pillow's memory, and a table of what is still to be done to them.

Operations that change every pixel value by itself only change the table, 256 entries for each channel. Several that
follow each other then cost one pass over the pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from slg_wds.arrays import I64, U8

if TYPE_CHECKING:
    from PIL import Image

Colour = tuple[int, int, int]

RAMP = np.arange(256)


class Canvas:
    """One view in the making.

    Args:
        pixels: uint8 [S, S, 3]; not changed.
        fill: the colour of pixels that come in from outside.
    """

    def __init__(self, pixels: U8, fill: Colour) -> None:
        from PIL import Image

        self.fill = fill
        self._image = Image.fromarray(pixels)
        self._table: U8 | None = None

    @property
    def side(self) -> int:
        """S, in pixels."""
        return self._image.width

    @property
    def image(self) -> Image.Image:
        """The pixels with all that was done so far."""
        if self._table is not None:
            self._image = self._image.point(self._table.reshape(-1).tolist())
            self._table = None
        return self._image

    @image.setter
    def image(self, image: Image.Image) -> None:
        self._image, self._table = image, None

    def map(self, table: U8) -> None:
        """Replace every value v of channel c by table[c, v]; a table of shape [256] is that of all channels."""
        tables = np.broadcast_to(table, (3, 256))
        self._table = tables if self._table is None else np.take_along_axis(tables, self._table, axis=1)

    def histogram(self) -> I64:
        """Count the pixels of each value, int64 [3, 256]."""
        counts = np.array(self._image.histogram(), np.int64).reshape(3, 256)
        if self._table is None:
            return counts
        moved = np.zeros_like(counts)
        np.add.at(moved, (np.arange(3)[:, None], self._table), counts)
        return moved

    def mean_grey(self) -> int:
        """Return the mean of the grey values (ITU-R 601-2 luma), rounded half up."""
        counts = np.array(self.image.convert("L").histogram(), np.int64)
        return int(int((counts * RAMP).sum()) / int(counts.sum()) + 0.5)

    def write_to(self, pixels: U8) -> None:
        """Write the result into uint8 [S, S, 3]."""
        pixels[:] = np.asarray(self.image)


def blended(start: int, factor: float) -> U8:
    """Return the table that moves values away from `start` by a factor: start + factor (v - start), in float32.

    The result is cut to 0..255 and its fraction dropped, as in Pillow's `Image.blend` (13.0).
    """
    moved = np.float32(start) + np.float32(factor) * (RAMP - start).astype(np.float32)
    table: U8 = np.clip(moved, 0, 255).astype(np.uint8)
    return table


def equalized(histogram: I64) -> U8:
    """Return the table that spreads each channel's values evenly, as Pillow's `ImageOps.equalize` (13.0) does.

    histogram: int64 [3, 256].
    """
    tables = np.tile(RAMP, (3, 1))
    for channel, counts in enumerate(histogram):
        there = np.flatnonzero(counts)
        step = 0 if len(there) < 2 else (int(counts.sum()) - int(counts[there[-1]])) // 255
        if step:
            tables[channel] = np.minimum((step // 2 + np.cumsum(counts) - counts) // step, 255)
    return tables.astype(np.uint8)


def smoothed(pixels: U8) -> U8:
    """Return pixels, uint8 [S, S, 3], that are means of 3 x 3 with five times the weight of the one in the middle.

    These are Pillow's `ImageFilter.SMOOTH` (13.0), which leaves the border as it is, in a third of its time.
    """
    wide = pixels.astype(np.uint16)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    sums = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * wide[1:-1, 1:-1]
    smooth: U8 = pixels.copy()
    smooth[1:-1, 1:-1] = (2 * sums + 13) // 26  # of 13 parts, rounded
    return smooth


def stretched(histogram: I64) -> U8:
    """Return the table that takes each channel's least value to 0 and its largest to 255.

    It does what Pillow's `ImageOps.autocontrast` (13.0) does without a cutoff. histogram: int64 [3, 256].
    """
    tables = np.tile(RAMP, (3, 1))
    for channel, counts in enumerate(histogram):
        there = np.flatnonzero(counts)
        if len(there) > 1:
            scale = 255.0 / (int(there[-1]) - int(there[0]))
            tables[channel] = np.clip(np.trunc(RAMP * scale + -int(there[0]) * scale), 0, 255)
    return tables.astype(np.uint8)
