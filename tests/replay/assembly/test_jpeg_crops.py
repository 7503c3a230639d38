"""Crops decoded and cut in one call equal those of `decode` and `cut`, which handle all unusual images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from slg_wds.images import decode, image_size
from slg_wds.images.pixels import torchvision_decoders
from slg_wds.replay.assembly import jpeg_crops
from slg_wds.replay.assembly.jpeg_crops import cut_jpegs
from slg_wds.replay.sources.files import Contents
from slg_wds.transforms.crops import CropRule, cut, sample_crops

CROPS, SIZE = 5, 48


def picture(seed: int, size: tuple[int, int] = (70, 90)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)


def saved(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def space(n: int) -> list[torch.Tensor]:
    memory = torch.zeros((n * CROPS, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    return list(memory.split(CROPS))


def together(data: list[bytes], sizes=None, interpolation="bicubic"):
    """(which are done, their crops, boxes, flips)"""
    sizes = sizes or [image_size(one) for one in data]
    drawn = [sample_crops(3, str(i), size, CROPS, CropRule()) for i, size in enumerate(sizes)]
    boxes, flips = (np.stack(column) for column in zip(*drawn, strict=True))
    n = len(data)
    out = torch.cat(space(n)).contiguous(memory_format=torch.channels_last)
    at = np.arange(n)[::-1]  # their places in the batch are not their order
    arguments = (np.array(sizes), boxes, flips, out, at, interpolation)
    done = cut_jpegs(Contents(data, [None] * n), *arguments)
    crops = out.clone()
    joined = b"".join(data)
    again = cut_jpegs(Contents(data, [None] * n, memoryview(joined)), *arguments)
    assert again == done and torch.equal(out, crops)
    return done, list(out.split(CROPS))[::-1], boxes, flips


@pytest.fixture(autouse=True)
def decoder():
    if torchvision_decoders().get("JPEG") is None:
        pytest.skip("this torchvision has no decoder of its own")


def test_the_call_is_compiled():
    assert isinstance(jpeg_crops._COMPILED, torch.jit.ScriptFunction), (
        "the interpreter is free during the call"
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_the_pixels_are_those_of_decode_and_cut(photographs, interpolation):
    files = sorted((photographs / "train").rglob("*.jpg"))[:3]
    data = [path.read_bytes() for path in files]
    data += [saved(picture(1)), saved(picture(2, (64, 33)), progressive=True), saved(picture(3).convert("L"))]
    data += [saved(picture(4).convert("CMYK")), saved(picture(5), subsampling=0)]
    done, out, boxes, flips = together(data, interpolation=interpolation)
    assert done == [True] * len(data)
    assert flips.any() and not flips.all()
    for one, ours, box, flip in zip(data, out, boxes, flips, strict=True):
        theirs = space(1)[0]
        cut(decode(one), box, flip, theirs, interpolation)
        assert torch.equal(ours, theirs)


def test_what_is_not_usual_is_left_and_the_rest_is_done():
    good = saved(picture(1))
    sizes = [(70, 90), (70, 90), (71, 90), (70, 90), (70, 90)]
    done, out, boxes, flips = together(
        [good, saved(picture(2), "PNG"), good, b"\xff\xd8\xff", saved(picture(3))], sizes
    )
    assert done == [True, False, False, False, True]
    theirs = space(1)[0]
    cut(decode(saved(picture(3))), boxes[4], flips[4], theirs)
    assert torch.equal(out[4], theirs)


def test_data_that_end_early_are_left_to_decode():
    whole = saved(picture(1, (300, 400)), quality=95)
    starved = whole[: len(whole) // 2] + b"\xff\xd9"  # libjpeg paints the rest grey and only warns
    done, *_ = together([whole, starved])
    assert done == [True, False]


def test_a_jpeg_that_cannot_be_decoded_leaves_all_to_the_caller():
    whole = saved(picture(1))
    scan = whole.index(b"\xff\xda")
    done, *_ = together([whole, whole[: scan + 2]])
    assert done == [False, False]


def test_no_images():
    boxes, flips, sizes = np.empty((0, 1, 4), np.int64), np.empty((0, 1), bool), np.empty((0, 2), np.int64)
    at = np.empty(0, np.int64)
    assert cut_jpegs(Contents([], []), sizes, boxes, flips, space(1)[0], at, "bicubic") == []
