"""From the bytes of JPEGs to their crops in one call, during which the interpreter is free for other threads.

Decoding an image and cutting 4 crops are some 25 operators. Called from Python, each gives the interpreter away and
waits to have it back, and its arguments are parsed: a tenth of a loader's time. TorchScript calls them without Python.
It is deprecated and has no successor for this (torch.compile and torch.export make kernels, and these operators are
kernels already): where it is gone, `cut_jpegs` takes nothing, and `decode` and `cut` do the same, to the bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from slg_wds.images.header import is_jpeg_of
from slg_wds.images.pixels import FILLINGS, TORCHVISION_RGB, torchvision_decoders

KERNELS = {"bicubic": 0, "bilinear": 1}
_FILLINGS = torch.frombuffer(bytearray(b"".join(FILLINGS)), dtype=torch.uint8).view(-1, 3)


def cut_jpegs(
    data: Sequence[bytes],
    sizes: Sequence[tuple[int, int]],
    boxes: npt.NDArray[np.int64],
    flips: npt.NDArray[np.bool_],
    out: Sequence[torch.Tensor],
    interpolation: str,
) -> list[bool]:
    """Do what `cut(decode(data), boxes, flips, out, interpolation)` does, for those of n images that are usual.

    Args:
        data: the files of n images.
        sizes: (height, width) that each image must have.
        boxes: int64 [n, c, 4], top, left, height, width in pixels.
        flips: bool [n, c].
        out: uint8 [c, 3, S, S] of each image, as `slg_wds.transforms.crops.cut` fills it.
        interpolation: a key of KERNELS.

    Returns:
        Which images are done, [n]. The caller does the others with `decode` and `cut`: other formats and sizes, damaged
        files, files that end as a truncated one would. What their `out` holds is undefined.
    """
    kernel = KERNELS.get(interpolation)
    usual = [i for i, one in enumerate(data) if is_jpeg_of(one, sizes[i])]
    if kernel is None or _COMPILED is None or not usual:
        return [False] * len(data)
    bits = [torch.frombuffer(bytearray(data[i]), dtype=torch.uint8) for i in usual]
    shapes, crops = [sizes[i] for i in usual], [out[i] for i in usual]
    cuts = boxes[usual].tolist(), flips[usual].tolist()
    try:
        found = _COMPILED(bits, shapes, *cuts, crops, kernel, TORCHVISION_RGB, _FILLINGS)
    except RuntimeError:  # no JPEG that torchvision can decode; which, the caller finds out
        return [False] * len(data)
    done = dict(zip(usual, found, strict=True))
    return [done.get(i, False) for i in range(len(data))]


def _decode_and_cut(
    data: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    boxes: list[list[list[int]]],
    flips: list[list[bool]],
    out: list[torch.Tensor],
    kernel: int,
    mode: int,
    fillings: torch.Tensor,
) -> list[bool]:
    done: list[bool] = []
    for i in range(len(data)):
        image = torch.ops.image.decode_jpeg(data[i], mode)
        done.append(
            image.size(1) == sizes[i][0]
            and image.size(2) == sizes[i][1]
            and not bool((fillings == image[:, -1, -1]).all(dim=1).any())
        )
        if done[i]:
            pixels = image.permute(1, 2, 0).contiguous().permute(2, 0, 1).unsqueeze(0)
            _cut_image(pixels, boxes[i], flips[i], out[i], kernel)
    return done


def _cut_image(
    pixels: torch.Tensor, boxes: list[list[int]], flips: list[bool], crops: torch.Tensor, kernel: int
) -> None:
    side = [crops.size(2), crops.size(3)]
    unflipped = torch.empty_like(crops[:1])
    for number in range(len(flips)):
        top, left, height, width = boxes[number]
        crop = pixels.narrow(2, top, height).narrow(3, left, width)
        target = crops.narrow(0, number, 1)
        resized = unflipped if flips[number] else target
        if kernel == 0:
            torch.ops.aten._upsample_bicubic2d_aa(crop, side, False, None, None, out=resized)
        else:
            torch.ops.aten._upsample_bilinear2d_aa(crop, side, False, None, None, out=resized)
        if flips[number]:
            target.copy_(unflipped.flip(-1))


def _compile() -> Callable[..., list[bool]] | None:
    """Compile `_decode_and_cut` by TorchScript; None where torch has no TorchScript or torchvision no such decoder."""
    if torchvision_decoders().get("JPEG") is None:
        return None
    # A standing filter, not `catch_warnings`, which other threads would see.
    warnings.filterwarnings("ignore", message=".*torch.jit.script")
    try:
        compiled: Callable[..., list[bool]] = torch.jit.script(_decode_and_cut)
    except Exception:
        return None
    return compiled


_COMPILED = _compile()  # at import, which happens once whatever the number of threads
