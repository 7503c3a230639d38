"""From the bytes of JPEGs to their crops in one call, during which the interpreter is free for other threads.

Decoding an image and cutting 4 crops are some 25 operators. Called from Python, they take a tenth of a loader's time;
slg_wds/transforms/cutting.py says why. Where torchvision has no decoder of its own, `cut_jpegs` takes nothing, and
`decode` and `cut` do the same, to the bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from slg_wds.images.header import is_jpeg_of
from slg_wds.images.pixels import FILLINGS, TORCHVISION_RGB, torchvision_decoders
from slg_wds.replay.sources.files import FileBytes
from slg_wds.transforms.cutting import KERNELS, cut_image, scripted

_FILLINGS = torch.frombuffer(bytearray(b"".join(FILLINGS)), dtype=torch.uint8).view(-1, 3)


def cut_jpegs(
    data: Sequence[FileBytes],
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
        interpolation: a key of `cutting.KERNELS`.

    Returns:
        Which images are done, [n]. The caller does the others with `decode` and `cut`: other formats and sizes, damaged
        files, files that end as a truncated one would. What their `out` holds is undefined.
    """
    usual = [i for i, one in enumerate(data) if is_jpeg_of(one, sizes[i])]
    if _COMPILED is None or not usual:
        return [False] * len(data)
    bits = [torch.frombuffer(data[i], dtype=torch.uint8) for i in usual]
    shapes, crops = [sizes[i] for i in usual], [out[i] for i in usual]
    cuts = torch.from_numpy(boxes[usual]), torch.from_numpy(flips[usual])
    try:
        found = _COMPILED(bits, shapes, *cuts, crops, KERNELS[interpolation], TORCHVISION_RGB, _FILLINGS)
    except RuntimeError:  # no JPEG that torchvision can decode; which, the caller finds out
        return [False] * len(data)
    done = dict(zip(usual, found, strict=True))
    return [done.get(i, False) for i in range(len(data))]


def _decode_and_cut(
    data: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    boxes: torch.Tensor,
    flips: torch.Tensor,
    out: list[torch.Tensor],
    kernel: int,
    mode: int,
    fillings: torch.Tensor,
) -> list[bool]:
    done: list[bool] = []
    # Lists of numbers made here, and not by the caller, take no time of the interpreter.
    all_boxes: list[list[list[int]]] = boxes.tolist()
    all_flips: list[list[bool]] = flips.tolist()
    for i in range(len(data)):
        image = torch.ops.image.decode_jpeg(data[i], mode)
        done.append(
            image.size(1) == sizes[i][0]
            and image.size(2) == sizes[i][1]
            and not bool((fillings == image[:, -1, -1]).all(dim=1).any())
        )
        if done[i]:
            pixels = image.permute(1, 2, 0).contiguous().permute(2, 0, 1).unsqueeze(0)
            cut_image(pixels, all_boxes[i], all_flips[i], out[i], kernel)
    return done


# Torch warns, once, of the first tensor that shares memory which cannot be written to. Nothing here writes to it.
warnings.filterwarnings("ignore", message="The given buffer is not writable")
torch.frombuffer(b"\0", dtype=torch.uint8)
_COMPILED: Callable[..., list[bool]] | None = None
if torchvision_decoders().get("JPEG") is not None:
    _COMPILED = scripted(_decode_and_cut)  # at import, which happens once whatever the number of threads
