"""The loop that cuts an image's crops, resizes and flips them, as one call during which the interpreter is free.

A crop takes four to six operators. Called from Python, each parses its arguments, gives the interpreter away and waits
to have it back. With 16 threads, this made the interpreter the limit (tools/EXPERIMENTS.md). TorchScript calls the
operators without Python. It is deprecated and has no successor for this: torch.compile and torch.export make kernels,
and these operators are kernels already. Where TorchScript is gone, the same functions run as Python, with the same
pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

KERNELS = {"bicubic": 0, "bilinear": 1, "nearest": 2}

F = TypeVar("F", bound=Callable[..., object])


def cut_image(
    pixels: torch.Tensor, boxes: list[list[int]], flips: list[bool], out: torch.Tensor, kernel: int
) -> None:
    """Cut crops as `slg_wds.transforms.crops.cut` does. TorchScript compiles it, alone or inside another function.

    The operators are those that torchvision's resize calls. They write into `out`, a part of the batch, which makes
    them about 1.5 times as fast as torchvision's function.

    Args:
        pixels: uint8 [1, 3, H, W]; fastest if its memory has the layout [H, W, 3].
        boxes: [M][4], each top, left, height, width in pixels.
        flips: [M].
        out: uint8 [M, 3, S, S], channels_last; receives the crops.
        kernel: a value of KERNELS.
    """
    side = [out.size(2), out.size(3)]
    for number in range(len(flips)):
        top, left, height, width = boxes[number]
        crop = pixels.narrow(2, top, height).narrow(3, left, width)
        target = out.narrow(0, number, 1)
        # In the memory layout of `out` a flip takes a tenth of the time of the resize, in any other more than that.
        resized = torch.empty_like(target) if flips[number] else target
        if kernel == 0:
            torch.ops.aten._upsample_bicubic2d_aa(crop, side, False, None, None, out=resized)
        elif kernel == 1:
            torch.ops.aten._upsample_bilinear2d_aa(crop, side, False, None, None, out=resized)
        else:  # no antialiasing, as in torchvision
            torch.ops.aten.upsample_nearest2d(crop, side, None, None, out=resized)
        if flips[number]:
            target.copy_(resized.flip(-1))


def scripted(function: F) -> F:
    """Compile a function by TorchScript; return the function itself where torch has no TorchScript."""
    # A standing filter, not `catch_warnings`, which other threads would see.
    warnings.filterwarnings("ignore", message=".*torch.jit.script")
    try:
        compiled: F = torch.jit.script(function)
    except Exception:
        return function
    return compiled


scripted_cut = scripted(cut_image)  # at import, which happens once whatever the number of threads
