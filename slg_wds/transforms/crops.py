"""Crops of an image: draw boxes and flips (numpy only), cut them from pixels (torch).

The generator and the loader both use this module, so a replayed crop is the crop that the teacher saw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from slg_wds.errors import UsageError
from slg_wds.transforms.randomness import BOXES, philox_of, uniforms

if TYPE_CHECKING:
    import torch

Boxes = npt.NDArray[np.int64]
Flips = npt.NDArray[np.bool_]

ATTEMPTS = 10  # like torchvision's RandomResizedCrop, which falls back to a central crop after them
# 64-bit random words per crop: four for each attempt, then four of which the first decides the flip.
WORDS = 4 * (ATTEMPTS + 1)
INTERPOLATIONS = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class CropRule:
    """How boxes and flips are drawn.

    Attributes:
        scale: (lowest, highest) area of a box, as a part of the image's area, in 0..1.
        ratio: (lowest, highest) aspect ratio of a box, width / height, in 0.01..100.
        flip: probability of a horizontal flip.

    Raises:
        UsageError: a value outside its range, or a lowest one above the highest.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise UsageError(
                f"crop scale {low:g}..{high:g} is not inside 0..1 with min <= max",
                hint="see --min-scale-crops and --max-scale-crops",
            )
        low, high = self.ratio
        if not 0.01 <= low <= high <= 100:
            raise UsageError(
                f"crop ratio {low:g}..{high:g} is not inside 0.01..100 with min <= max", hint="see --ratio"
            )
        if not 0 <= self.flip <= 1:
            raise UsageError(f"flip probability {self.flip:g} is not inside 0..1", hint="see --flip-prob")


def sample_crops(
    seed: int, key: str, size: tuple[int, int], num_crops: int, rule: CropRule
) -> tuple[Boxes, Flips]:
    """Draw the first `num_crops` boxes and flips of an image.

    The result is a pure function of the arguments, and crop n does not depend on `num_crops`. The distribution is that
    of torchvision's RandomResizedCrop.get_params (v0.29) followed by RandomHorizontalFlip.

    Args:
        seed: 0 <= seed < 2**63.
        key: the image's key in the label set.
        size: (height, width) of the image, in pixels.
        num_crops: M, at least 0.
        rule: the ranges to draw from.

    Returns:
        (boxes int64 [M, 4], each (top, left, height, width) in pixels; flips bool [M]).
    """
    if num_crops == 0:
        return np.empty((0, 4), np.int64), np.empty(0, np.bool_)
    words = philox_of(seed, key, BOXES).random_raw(num_crops * WORDS)
    drawn = uniforms(words.reshape(num_crops, ATTEMPTS + 1, 4))
    boxes, found = first_fitting(drawn[:, :ATTEMPTS], size, rule)
    boxes[~found] = _central(size, rule)
    return boxes, drawn[:, ATTEMPTS, 0] < rule.flip


def first_fitting(
    drawn: npt.NDArray[np.float64], size: tuple[int, int], rule: CropRule
) -> tuple[Boxes, npt.NDArray[np.bool_]]:
    """Return the box of the first attempt that fits the image.

    Args:
        drawn: [M, attempts, 4] in [0, 1), for area, aspect ratio, top and left.
        size: (height, width) of the image.
        rule: the ranges of area and ratio.

    Returns:
        (boxes int64 [M, 4]; bool [M], whether an attempt did fit. Other boxes mean nothing.)
    """
    height, width = size
    area = height * width * (rule.scale[0] + (rule.scale[1] - rule.scale[0]) * drawn[..., 0])
    low, high = math.log(rule.ratio[0]), math.log(rule.ratio[1])
    aspect = _exp(low + (high - low) * drawn[..., 1])
    w = np.rint(np.sqrt(area * aspect))
    h = np.rint(np.sqrt(area / aspect))
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.argmax(axis=1)
    rows = np.arange(len(first))
    h, w, top, left = (column[rows, first] for column in (h, w, drawn[..., 2], drawn[..., 3]))
    boxes = np.stack([np.floor(top * (height - h + 1)), np.floor(left * (width - w + 1)), h, w], axis=1)
    return boxes.astype(np.int64), fits[rows, first]


def _central(size: tuple[int, int], rule: CropRule) -> tuple[int, int, int, int]:
    """Return the largest central box whose aspect ratio is in the rule's range, for crops whose attempts all failed."""
    height, width = size
    h, w = height, width
    if width / height < rule.ratio[0]:
        h = max(1, round(width / rule.ratio[0]))
    elif width / height > rule.ratio[1]:
        w = max(1, round(height * rule.ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def _exp(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return e**x for |x| <= 4.7, by sums, products and quotients only.

    IEEE 754 defines their results to the bit. The exp of numpy and of C libraries differs in the last place between
    processors, and boxes must not differ.
    """
    total = np.ones_like(x)
    for n in range(40, 0, -1):  # Horner's rule on the Taylor series; 4.7**40 / 40! is below 1e-20
        total = 1.0 + x * total / n
    return total


def cut(
    image: torch.Tensor,
    boxes: npt.NDArray[np.int64],
    flips: npt.NDArray[np.bool_],
    out: torch.Tensor,
    interpolation: str = "bicubic",
) -> None:
    """Cut crops, resize them (antialiased, except `nearest`), flip them, and write them into `out`.

    The result has the same bits as torchvision v2's resized_crop on uint8 tensors, followed by a horizontal flip. Other
    threads of Python run meanwhile, since all crops are cut in one call: see cutting.py.

    Args:
        image: uint8 [3, H, W]; fastest if its memory has the layout [H, W, 3].
        boxes: int64 [M, 4], each (top, left, height, width) in pixels.
        flips: bool [M].
        out: uint8 [M, 3, S, S], channels_last; receives the crops.
        interpolation: one of INTERPOLATIONS.
    """
    from slg_wds.transforms.cutting import KERNELS, scripted_cut

    scripted_cut(image.unsqueeze(0), boxes.tolist(), flips.tolist(), out, KERNELS[interpolation])
