"""Images of too many pixels are refused before they are decoded."""

from __future__ import annotations

import pickle
import struct
import time

import pytest
from PIL import Image

from slg_wds.errors import ImageTooLargeError
from slg_wds.images import MAX_PIXELS, decode, image_size, reencode
from support.images.encoded import png, saved
from support.images.formats import FORMATS, PHOTOS


def bomb(form: str) -> bytes:
    """A header of 60000 x 60000 pixels."""
    if form == "PNG":
        return png(2, 8, [], 60000).replace(struct.pack(">II", 60000, 0), struct.pack(">II", 60000, 60000))
    data = bytearray(saved(Image.fromarray(PHOTOS["odd"]), form))
    if form == "JPEG":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", 60000, 60000)
    elif form == "WEBP":
        size = (60000 - 1).to_bytes(3, "little")
        extended = b"VP8X" + struct.pack("<II", 10, 0) + size + size
        data[4:8] = struct.pack("<I", len(data) + len(extended) - 8)
        data[12:12] = extended
    elif form == "BMP":
        data[18:26] = struct.pack("<ii", 60000, 60000)
    else:
        return b"P6\n60000 60000\n255\n"
    return bytes(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "PPM"])
def test_bombs_are_refused_before_decoding(form: str) -> None:
    data = bomb(form)
    start = time.process_time()
    with pytest.raises(ImageTooLargeError, match=r"60000|3600000000") as caught:
        decode(data, path="bomb")
    assert time.process_time() - start < 0.5
    assert "bomb" in str(pickle.loads(pickle.dumps(caught.value)))


def test_the_limit_is_the_callers() -> None:
    for name in ("jpeg q75 subsampling2", "png", "webp", "bmp"):
        data = FORMATS[name](Image.fromarray(PHOTOS["odd"]))
        assert decode(data, max_pixels=37 * 41).shape == (3, 37, 41)
        with pytest.raises(ImageTooLargeError, match=r"41 x 37 pixels .* limit of 1516"):
            decode(data, max_pixels=37 * 41 - 1)
        with pytest.raises(ImageTooLargeError):
            reencode(data, 8, max_pixels=37 * 41 - 1)


def test_a_raised_limit_holds_for_pillow_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) >= MAX_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    data = FORMATS["png"](Image.fromarray(PHOTOS["odd"]))
    assert decode(data, max_pixels=37 * 41).shape == (3, 37, 41)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ImageTooLargeError):
        decode(data, max_pixels=1000)
    with pytest.raises(ImageTooLargeError, match="exceeds limit"):
        image_size(FORMATS["bmp"](Image.fromarray(PHOTOS["odd"])), "a.bmp")
