"""Grey levels of more than 8 bits: scaled by their range or refused, never a white or black square."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from slg_wds.errors import ImageDecodeError
from slg_wds.images import decode, image_size, reencode
from support.images.encoded import chunk, hwc, png16, saved

GREY = skimage.data.camera()[100:300, 150:400]  # uint8
DEEP = (GREY.astype(np.int64) * 257 + np.random.default_rng(0).integers(-128, 129, GREY.shape)).clip(0, 65535)


def grey(data: bytes) -> NDArray[np.uint8]:
    pixels = hwc(decode(data))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def tiff(levels: NDArray[np.generic], order: str, bits: int, kind: int = 1, photometric: int = 1) -> bytes:
    """An uncompressed TIFF of one strip. kind: 1 unsigned, 2 signed, 3 float."""
    content = levels.tobytes()
    tags = [
        (256, 3, levels.shape[1] if bits != 12 else levels.shape[1] * 2 // 3),
        (257, 3, levels.shape[0]), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
        (277, 3, 1), (278, 3, levels.shape[0]), (279, 4, len(content)), (339, 3, kind),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HHI", number, form, 1)
        + (struct.pack(f"{order}Hxx", value) if form == 3 else struct.pack(f"{order}I", value))
        for number, form, value in tags
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(content))
    return head + content + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def pgm(levels: NDArray[np.int64], top: int) -> bytes:
    return b"P5 %d %d %d\n" % (*levels.shape[::-1], top) + levels.astype(">u2").tobytes()


SIXTEEN = {
    "png": lambda levels: saved(Image.fromarray(levels.astype(np.uint16)), "PNG"),
    "tiff little": lambda levels: tiff(levels.astype("<u2"), "<", 16),
    "tiff big": lambda levels: tiff(levels.astype(">u2"), ">", 16),
    "tiff lzw": lambda levels: saved(
        Image.fromarray(levels.astype(np.uint16)), "TIFF", compression="tiff_lzw"
    ),
    "tiff white is zero": lambda levels: tiff((65535 - levels).astype("<u2"), "<", 16, photometric=0),
    "jpeg 2000": lambda levels: saved(Image.fromarray(levels.astype(np.uint16)), "JPEG2000"),
    "pgm": lambda levels: pgm(levels, 65535),
}


@pytest.mark.parametrize("form", SIXTEEN)
def test_16_bits_are_divided_by_257(form: str) -> None:
    data = SIXTEEN[form](DEEP)
    assert np.array_equal(grey(data), np.floor(DEEP / 257 + 0.5))
    assert np.array_equal(grey(SIXTEEN[form](GREY.astype(np.int64) * 257)), GREY)
    assert image_size(data) == GREY.shape


def test_other_ranges_are_their_own() -> None:
    twelve = GREY.astype(np.int64) * 4095 // 255
    assert np.abs(grey(pgm(twelve, 4095)).astype(int) - GREY).max() <= 1
    pairs = twelve.reshape(GREY.shape[0], -1, 2)
    packed = np.stack(
        [pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1] & 255], -1
    )
    packed = packed.reshape(GREY.shape[0], -1).astype(np.uint8)
    assert np.abs(grey(tiff(packed, "<", 12)).astype(int) - GREY).max() <= 1


def test_16_bits_with_transparency() -> None:
    data = saved(Image.fromarray(DEEP.astype(np.uint16)), "PNG", transparency=int(DEEP[0, 0]))
    assert np.array_equal(grey(data), np.floor(DEEP / 257 + 0.5))


def test_re_encoded_copies_are_of_the_scaled_picture() -> None:
    small = reencode(SIXTEEN["png"](DEEP), 100)
    expected = Image.fromarray(grey(SIXTEEN["png"](DEEP))).convert("RGB")
    assert small == saved(expected.resize((100, 80), Image.Resampling.LANCZOS), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(GREY.astype("<f4") / 255, "<", 32, kind=3), "floating-point"),
        (tiff(GREY.astype("<f4"), "<", 32, kind=3), "floating-point"),
        (tiff(GREY.astype("<u4"), "<", 32), "signed or 32-bit"),
        (tiff(GREY.astype("<i2"), "<", 16, kind=2), "signed or 32-bit"),
        (b"Pf 250 200 -1.0\n" + (GREY.astype("<f4") / 255).tobytes(), "floating-point"),
        (SIXTEEN["png"](GREY), "end at 255 of 65535"),  # 8 bits stored in 16
        (SIXTEEN["tiff big"](GREY.astype(np.int64) * 16), "end at 40[0-9]{2} of 65535"),  # 12 in 16
    ],
)
def test_levels_without_a_known_white_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message) as caught:
        decode(data, path="n01/a.png")
    assert caught.value.key == "n01/a.png" and caught.value.hint and "8" in caught.value.hint


def test_a_black_picture_is_black() -> None:
    assert not grey(SIXTEEN["png"](np.zeros((5, 7), np.int64))).any()


def test_colours_of_16_bits_keep_their_high_bytes() -> None:
    photo = skimage.data.chelsea()
    data = png16(2, Image.fromarray(photo))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(hwc(decode(data)), np.asarray(image))
    assert np.abs(hwc(decode(data)).astype(int) - photo).max() <= 1


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"tEXt", b"iCCP"])
def test_a_png_with_a_large_note_is_whole(name: bytes, tmp_path: Path) -> None:
    """Pillow refuses pictures for notes of more than a megabyte."""
    text = b"x" * (3 << 20)
    content = {
        b"tEXt": b"Comment\0" + text,
        b"zTXt": b"Comment\0\0" + zlib.compress(text),
        b"iTXt": b"Comment\0\1\0\0\0" + zlib.compress(text),
        b"iCCP": b"icc\0\0" + zlib.compress(text),
    }[name]
    plain = saved(Image.fromarray(GREY).convert("RGB"), "PNG")
    place = plain.index(b"IDAT") - 4
    data = plain[:place] + chunk(name, content) + plain[place:]
    assert np.array_equal(grey(data), GREY)
    assert image_size(data) == GREY.shape
    damaged = data.replace(content[-8:], b"12345678")
    with pytest.raises(ImageDecodeError, match="wrong CRC"):
        decode(damaged)
    with pytest.raises(ImageDecodeError, match="truncated"):
        decode(data[: place + 100])
