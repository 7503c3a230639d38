"""From the bytes of JPEGs to their crops in one call, during which the interpreter is free for other threads.

Decoding an image and cutting 4 crops are some 25 operators. Called from Python, they take a tenth of a loader's time;
slg_wds/transforms/cutting.py says why. Where torchvision has no decoder of its own, `cut_jpegs` takes nothing, and
`decode` and `cut` do the same, to the bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from slg_wds.arrays import I64, Bools
from slg_wds.format.counting import before
from slg_wds.images.header import is_jpeg_of
from slg_wds.images.pixels import FILLINGS, TORCHVISION_RGB, torchvision_decoders
from slg_wds.replay.sources.files import Contents
from slg_wds.transforms.cutting import KERNELS, cut_image, scripted

_GREYS = [pixel[0] for pixel in FILLINGS]  # of fillings, which are grey


def cut_jpegs(
    data: Contents,
    sizes: I64,
    boxes: I64,
    flips: Bools,
    out: Tensor,
    at: I64,
    interpolation: str,
) -> list[bool]:
    """Do what `cut(decode(part), boxes, flips, out, interpolation)` does, for those of n images that are usual.

    Args:
        data: the files of n images.
        sizes: int64 [n, 2], the height and width that each image must have, in pixels.
        boxes: int64 [n, c, 4], top, left, height, width in pixels.
        flips: bool [n, c].
        out: uint8 [B, 3, S, S], channels_last, the crops of all images of a batch.
        at: int64 [n], each image's number in the batch; its crops are c rows of `out` from row c * number on.
        interpolation: a key of `cutting.KERNELS`.

    Returns:
        Which images are done, [n]. The caller does the others with `decode` and `cut`: other formats and sizes, damaged
        files, files that end as a truncated one would. What their rows of `out` hold is undefined.
    """
    wanted = sizes.tolist()
    usual = [i for i, one in enumerate(data.parts) if is_jpeg_of(one, wanted[i])]
    if _COMPILED is None or not usual:
        return [False] * len(data.parts)
    memory, places = _placed(data, usual)
    where = np.concatenate([places, sizes[usual], at[usual, None]], axis=1)
    cuts = torch.from_numpy(where), torch.from_numpy(boxes[usual]), torch.from_numpy(flips[usual])
    try:
        found = _COMPILED(memory, *cuts, out, KERNELS[interpolation], TORCHVISION_RGB, _GREYS)
    except RuntimeError:  # no JPEG that torchvision can decode; which, the caller finds out
        return [False] * len(data.parts)
    if len(usual) == len(found) == len(data.parts):
        return found
    done = dict(zip(usual, found, strict=True))
    return [done.get(i, False) for i in range(len(data.parts))]


def _placed(data: Contents, usual: list[int]) -> tuple[list[Tensor], I64]:
    """Return pieces of memory, and for each usual part its piece, first byte and bytes, int64 [n, 3]."""
    lengths = np.fromiter(map(len, data.parts), np.int64, len(data.parts))
    places = np.zeros((len(usual), 3), np.int64)
    places[:, 2] = lengths[usual]
    if data.memory is not None:
        places[:, 1] = before(lengths)[usual]
        return [torch.frombuffer(data.memory, dtype=torch.uint8)], places
    places[:, 0] = np.arange(len(usual))
    return [torch.frombuffer(data.parts[i], dtype=torch.uint8) for i in usual], places


def _decode_and_cut(
    memory: list[Tensor],
    where: Tensor,
    boxes: Tensor,
    flips: Tensor,
    out: Tensor,
    kernel: int,
    mode: int,
    greys: list[int],
) -> list[bool]:
    done: list[bool] = []
    # Lists of numbers made here, and not by the caller, take no time of the interpreter.
    all_where: list[list[int]] = where.tolist()
    all_boxes: list[list[list[int]]] = boxes.tolist()
    all_flips: list[list[bool]] = flips.tolist()
    crops = boxes.size(1)
    for i in range(len(all_where)):
        piece, start, length, height, width, at = all_where[i]
        image = torch.ops.image.decode_jpeg(memory[piece].narrow(0, start, length), mode)
        usual = image.size(1) == height and image.size(2) == width
        if usual:
            last = image.select(1, height - 1).select(1, width - 1)
            usual = int(last[0]) not in greys or not bool((last == last[0]).all())
        if usual:
            cut_image(
                image.unsqueeze(0), all_boxes[i], all_flips[i], out.narrow(0, at * crops, crops), kernel
            )
        done.append(usual)
    return done


# Torch warns, once, of the first tensor that shares memory which cannot be written to. Nothing here writes to it.
warnings.filterwarnings("ignore", message="The given buffer is not writable")
torch.frombuffer(b"\0", dtype=torch.uint8)
_COMPILED: Callable[..., list[bool]] | None = None
if torchvision_decoders().get("JPEG") is not None:
    _COMPILED = scripted(_decode_and_cut)  # at import, which happens once whatever the number of threads
