"""Views as they are recorded -> pixels, and words for people. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from slg_wds.arrays import U8
from slg_wds.format.records.mixing import GRID, WHOLE, Mixing
from slg_wds.format.records.views import Views
from slg_wds.transforms.canvas import Canvas, Colour
from slg_wds.transforms.operations import RESAMPLINGS, operation_of

if TYPE_CHECKING:
    import torch


def apply_views(crops: torch.Tensor, views: Views) -> None:
    """Do to crops what their views say, in place.

    Args:
        crops: uint8 [M, 3, S, S] in the memory of the CPU, channels_last; cut, resized and flipped.
        views: of these M crops.

    Raises:
        RecordError: a view has an operation that does not exist.
    """
    pixels = crops.permute(0, 2, 3, 1).numpy()  # [M, S, S, 3], the same memory
    fill = colour(views.fill)
    for crop in np.flatnonzero(views.operations.any(axis=-1)).tolist():
        canvas = Canvas(pixels[crop], fill)
        operations, arguments = views.operations[crop].tolist(), views.arguments[crop].tolist()
        for code, argument in zip(operations, arguments, strict=True):
            if code:
                operation, resampling = operation_of(code)
                operation.pixels(canvas, operation.value(code, argument), resampling)
        canvas.write_to(pixels[crop])
    for crop in np.flatnonzero(views.erased.any(axis=-1)).tolist():
        top, left, bottom, right = erased_pixels(views.erased[crop], pixels.shape[1])
        pixels[crop, top:bottom, left:right] = colour(views.erase_fill)


def erased_pixels(box: U8, side: int) -> tuple[int, int, int, int]:
    """Return which pixels of a view are erased.

    Args:
        box: uint8 [4] of top, left, height, width in 1/255 of the side.
        side: of the view in pixels.

    Returns:
        (first row, first column, row after the last, column after the last). An edge e lies at (e side + 127) // 255.
    """
    top, left, height, width = box.tolist()
    edges = (top, left, top + height, left + width)
    first, second, third, fourth = ((edge * side + GRID // 2) // GRID for edge in edges)
    return first, second, third, fourth


def colour(fill: int) -> Colour:
    """Return the (red, green, blue) of 0xRRGGBB."""
    return fill >> 16, fill >> 8 & 255, fill & 255


def check_operations(views: Views) -> None:
    """Raise RecordError if views have an operation that does not exist, as `apply_views` would."""
    codes = views.operations.reshape(-1)
    for code in np.unique(codes[codes > 0]).tolist():
        operation_of(code)


def words_of(views: Views, crop: int, name_of: Callable[[int], str] = str) -> list[str]:
    """Say what is done to a crop after it is cut, one text for each operation in their order.

    Args:
        views: of the crops of an image.
        crop: the number of the crop among them.
        name_of: returns the name of an image by its number in the plan, for those that are mixed in.
    """
    said = []
    pairs = zip(views.operations[crop].tolist(), views.arguments[crop].tolist(), strict=True)
    for code, argument in pairs:
        if code:
            operation, resampling = operation_of(code)
            by = f" ({RESAMPLINGS[resampling]})" if operation.resampled else ""
            said.append(operation.words.format(operation.value(code, argument)) + by)
    if views.erased[crop].any():
        top, left, height, width = (f"{part / GRID:.0%}" for part in views.erased[crop].tolist())
        said.append(f"erased {width} x {height} at {left}, {top}")
    return said if views.mixing is None else said + _words_of_mixing(views.mixing, crop, name_of)


def _words_of_mixing(mixing: Mixing, crop: int, name_of: Callable[[int], str]) -> list[str]:
    if not mixing.mixed[crop]:
        return []
    second = f"crop {mixing.crop[crop]} of {name_of(int(mixing.partner[crop]))}"
    if mixing.lam[crop]:
        return [f"mixed with {1 - mixing.lam[crop] / WHOLE:.0%} of {second}"]
    top, left, height, width = (f"{part / GRID:.0%}" for part in mixing.box[crop].tolist())
    return [f"pasted {width} x {height} at {left}, {top} from {second}"]


def words_of_options(views: Mapping[str, Any]) -> list[str]:
    """Say how views were drawn, by `views` of a set's identity."""
    said = {
        "aa": "operations of {}",
        "color_jitter": "colour jitter {}",
        "reprob": "erased with probability {}",
        "mixup": "mixed by mixup {}",
        "cutmix": "mixed by CutMix {}",
        "mixup_prob": "mixed with probability {}",
        "mixup_switch_prob": "of these by CutMix with probability {}",
    }
    return [text.format(str(views[name])[:80]) for name, text in said.items() if name in views]
