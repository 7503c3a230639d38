"""The pixels of every operation: Pillow's own, pinned by checksums, and the same view at every size."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from slg_wds.errors import RecordError
from slg_wds.format.records.views import Views
from slg_wds.transforms.operations import NEGATIVE, OPERATIONS, RESAMPLING, Operation, operation_of
from slg_wds.transforms.replaying import apply_views, check_operations, colour, erased_pixels, words_of
from support.paths import GOLDEN

FILL = 0x7C7468
PIXELS = GOLDEN / "pixels" / "views.json"
FILTERS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def picture(side: int = 64) -> np.ndarray:
    """Pixels by arithmetic alone, uint8 [S, S, 3]: slopes, edges and a little texture, without the darkest values."""
    y, x = np.mgrid[:side, :side]
    red = 20 + 2 * x + y + 40 * (x // 11 % 2)
    green = 230 - 2 * y - x // 3 + 9 * ((x * 7 + y * 5) % 3)
    blue = 60 + (x * y) // 24 % 150
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


def view(*operations: tuple[int, int], box: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Views:
    pairs = np.array(operations, np.uint8).reshape(1, -1, 2)
    return Views(pairs[:, :, 0], pairs[:, :, 1], np.array([box], np.uint8), FILL, 0x010203)


def done(pixels: np.ndarray, views: Views) -> np.ndarray:
    """What `apply_views` makes of pixels, uint8 [S, S, 3]."""
    crops = torch.from_numpy(pixels.copy())[None].permute(0, 3, 1, 2)
    apply_views(crops, views)
    return crops[0].permute(1, 2, 0).numpy()


def cases() -> Iterator[tuple[Operation, int, int]]:
    """(operation, code, argument) of every operation, sign and resampling, at several arguments."""
    for operation in OPERATIONS:
        arguments = (
            (0,) if not operation.full else (1, 5, 8) if operation.name == "Posterize" else (0, 51, 128, 255)
        )
        for sign in (0, NEGATIVE) if operation.signed else (0,):
            for resampling in range(3) if operation.resampled else (0,):
                for argument in arguments:
                    yield operation, operation.number + sign + RESAMPLING * resampling, argument


def by_pillow(operation: Operation, value: float, resampling: int, image: Image.Image) -> Image.Image:
    """The same by the functions that timm and torchvision call."""
    slope, shift = (round(part * 2**15) / 2**15 for part in (value, value * image.width))
    geometric = {
        "ShearX": (1, slope, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, slope, 1, 0),
        "TranslateX": (1, 0, shift, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, shift),
    }
    if operation.name in geometric:
        matrix = geometric[operation.name]
        return image.transform(image.size, Image.AFFINE, matrix, FILTERS[resampling], fillcolor=colour(FILL))
    return {
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Invert": lambda: ImageOps.invert(image),
        "Rotate": lambda: image.rotate(value, FILTERS[resampling], fillcolor=colour(FILL)),
        "Posterize": lambda: ImageOps.posterize(image, int(value)),
        "Solarize": lambda: ImageOps.solarize(image, int(value)),
        "SolarizeAdd": lambda: image.point(
            [min(255, i + int(value)) if i < 128 else i for i in range(256)] * 3
        ),
        "Color": lambda: ImageEnhance.Color(image).enhance(value),
        "Contrast": lambda: ImageEnhance.Contrast(image).enhance(value),
        "Brightness": lambda: ImageEnhance.Brightness(image).enhance(value),
        "Sharpness": lambda: ImageEnhance.Sharpness(image).enhance(value),
        "GaussianBlur": lambda: image.filter(ImageFilter.GaussianBlur(value * image.width)),
    }[operation.name]()


MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY")


def test_pixels_are_those_of_pillow():
    for side in (64, 224):
        image = Image.fromarray(picture(side))
        for operation, code, argument in cases():
            if operation.name in MOVES and code // RESAMPLING == 1:
                continue
            expected = by_pillow(operation, operation.value(code, argument), code // RESAMPLING, image)
            found = done(picture(side), view((code, argument)))
            assert np.array_equal(found, np.asarray(expected)), (operation.name, code, argument, side)


def test_bilinear_moves_are_pillows_to_2_levels_of_256():
    """Except at the border of what comes in from outside, with which they blend."""
    image, filled = Image.fromarray(picture(224)), Image.new("RGB", (224, 224), colour(FILL))
    for operation, code, argument in cases():
        if operation.name in MOVES and code // RESAMPLING == 1:
            value = operation.value(code, argument)
            expected = np.asarray(by_pillow(operation, value, 1, image), np.int64)
            found = done(picture(224), view((code, argument)))
            white = Image.new("RGB", (224, 224), (255, 255, 255))
            kept = np.asarray(by_pillow(operation, value, 1, white))[..., 0] == 255
            inside, outside = eroded(kept), eroded(~kept)
            assert np.abs(found - expected)[inside].max(initial=0) <= 2, (operation.name, code, argument)
            assert np.array_equal(found[outside], np.asarray(filled)[outside])
            assert inside.sum() > 0.2 * inside.size


def eroded(mask: np.ndarray) -> np.ndarray:
    """A mask without the pixels that have another one, or the edge of the view, beside them."""
    padded = np.pad(mask, 1)
    parts = [padded[1 + y : 225 + y, 1 + x : 225 + x] for y, x in ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0))]
    return np.logical_and.reduce(parts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(list(cases())), min_size=2, max_size=6))
def test_a_chain_of_operations_is_one_after_the_other(chain):
    pixels = picture()
    for _, code, argument in chain:
        pixels = done(pixels, view((code, argument)))
    assert np.array_equal(done(picture(), view(*[(code, argument) for _, code, argument in chain])), pixels)


def checksums() -> dict[str, int]:
    """The CRC-32 of the pixels of every case."""
    found = {
        f"{one.name} {code} {at}": zlib.crc32(done(picture(), view((code, at)))) for one, code, at in cases()
    }
    erased = done(picture(), view(box=(10, 20, 101, 200)))
    chain = done(picture(), view((4 + 64, 40), (9, 200), (3, 0), (2, 0), box=(0, 0, 255, 9)))
    return {**found, "erased": zlib.crc32(erased), "chain": zlib.crc32(chain)}


def test_pixels_are_the_golden_ones():
    assert checksums() == json.loads(PIXELS.read_text())


@pytest.mark.parametrize("side", [1, 7, 64, 224, 255, 256, 511])
def test_an_erased_box_has_the_same_place_at_every_size(side):
    box = np.array([10, 100, 100, 155], np.uint8)
    top, left, bottom, right = erased_pixels(box, side)
    assert np.allclose([top, left, bottom, right], np.array([10, 100, 110, 255]) * side / 255, atol=0.5)
    pixels = done(np.full((side, side, 3), 9, np.uint8), view(box=tuple(box)))
    there = (pixels == (1, 2, 3)).all(axis=2)
    assert there.sum() == (bottom - top) * (right - left) and there[top:bottom, left:right].all()


def test_a_view_shows_the_same_at_another_size():
    """A student of half the size sees the teacher's view: reduced views of both sizes are nearly equal."""

    def reduced(pixels):
        return np.asarray(Image.fromarray(pixels).resize((28, 28), Image.Resampling.BOX)).astype(float)

    large, small = (
        picture(224),
        np.asarray(Image.fromarray(picture(224)).resize((112, 112), Image.Resampling.BOX)),
    )
    for operation, code, argument in cases():
        if operation.name != "Sharpness" and code < RESAMPLING * 2:  # it works on neighbouring pixels
            views = view((code, min(argument, 128)), box=(30, 40, 60, 90))
            apart = np.abs(reduced(done(large, views)) - reduced(done(small, views)))
            assert apart.mean() < 6, (operation.name, code, argument, apart.mean())


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(cases())), st.integers(0, 255))
def test_every_argument_is_the_nearest_to_its_own_value(case, argument):
    operation, code, _ = case
    if not operation.full or (operation.idle_from is not None and argument >= operation.idle_from):
        return
    codes, arguments = operation.encode(np.array([operation.value(code, argument)]))
    plain = code % RESAMPLING
    assert arguments[0] == argument and codes[0] == (plain if argument else plain & ~NEGATIVE)


@pytest.mark.parametrize("code", [17, 31, 32, 1 + NEGATIVE, 1 + RESAMPLING, 4 + 3 * RESAMPLING])
def test_unknown_operations_are_refused(code):
    for refuse in (
        lambda: operation_of(code),
        lambda: done(picture(), view((code, 0))),
        lambda: check_operations(view((code, 0))),
    ):
        with pytest.raises(RecordError, match=f"operation of code {code}, which is unknown"):
            refuse()


def test_words_say_what_is_done():
    views = view((4 + NEGATIVE + RESAMPLING, 51), (0, 0), (8, 51), (6, 99), box=(51, 0, 102, 255))
    assert words_of(views, 0) == [
        "rotated by -27.0 degrees (bilinear)",
        "colour x 1.20",
        "solarized from 99 on",
        "erased 100% x 40% at 0%, 20%",
    ]


if __name__ == "__main__":
    PIXELS.write_text(json.dumps(checksums(), indent=1) + "\n")
