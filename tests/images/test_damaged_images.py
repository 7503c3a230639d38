"""Damaged images: an error each time, never a crash, and never pixels that are not Pillow's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageFile

from slg_wds.errors import ImageDecodeError, ImageError
from slg_wds.images import decode, image_size, reencode
from support.images.encoded import hwc, saved
from support.images.formats import CHELSEA, FORMATS, ORIENTATION_6, PHOTOS, pillow

TRUNCATED = [
    "jpeg q75 subsampling2",
    "jpeg q75 subsampling2 progressive",
    "jpeg restarts",
    "jpeg grey",
    "jpeg cmyk",
]
TRUNCATED += ["png", "png palette", "png grey", "png rgb 16", "webp", "webp lossless", "webp alpha"]


@pytest.mark.parametrize("name", TRUNCATED)
def test_truncation_anywhere_is_an_error(name: str) -> None:
    data = FORMATS[name](Image.fromarray(PHOTOS["odd"] if "16" in name else CHELSEA[:150, :200]))
    cuts = {*range(40), *np.linspace(40, len(data) - 1, 30).astype(int).tolist()}
    cuts |= {len(data) - back for back in range(1, 24)}
    for cut in sorted(cuts):
        with pytest.raises(ImageDecodeError) as caught:
            decode(data[:cut], path="n01/cut.JPEG")
        assert "n01/cut.JPEG" in str(caught.value)
    with pytest.raises(ImageDecodeError):
        decode(data[: len(data) // 2] + bytes(len(data) - len(data) // 2)) if "webp" not in name else decode(
            b""
        )


@pytest.mark.parametrize(
    "name", ["jpeg q75 subsampling2", "jpeg restarts", "jpeg grey", "jpeg cmyk", "jpeg ycck"]
)
def test_jpeg_cut_and_closed_again_is_an_error(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """An end marker before the end of the data (by more than one block): both libraries paint grey and only warn."""
    data = FORMATS[name](Image.fromarray(CHELSEA[:150, :200]))
    for cut in np.linspace(1500, len(data) - 300, 40).astype(int).tolist():
        with pytest.raises(ImageDecodeError, match="truncated JPEG"):
            decode(data[:cut] + b"\xff\xd9")
    capfd.readouterr()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("exif", [b"", ORIENTATION_6 + saved(Image.new("RGB", (16, 16), (128,) * 3), "JPEG")])
def test_a_picture_that_is_grey_in_its_corner_is_fine(progressive: bool, exif: bytes) -> None:
    pixels = CHELSEA.copy()
    pixels[-64:, -64:] = 128
    options = {"exif": exif} if exif else {}
    data = saved(Image.fromarray(pixels), "JPEG", quality=95, progressive=progressive, **options)
    image = decode(data)
    assert image[:, -1, -1].tolist() == [128, 128, 128]
    assert np.array_equal(hwc(image), pillow(data))
    cut = data[: len(data) * 3 // 4] + b"\xff\xd9"
    if not progressive:
        with pytest.raises(ImageDecodeError, match="truncated JPEG"):
            decode(cut)


def test_damaged_png_is_an_error_and_not_a_crash() -> None:
    """libpng inside torchvision 0.29 ends the process on these, so a process of its own decodes them."""
    data = FORMATS["png"](Image.fromarray(CHELSEA[:100, :100]))
    program = (
        "import sys\n"
        "from slg_wds.errors import ImageDecodeError\n"
        "from slg_wds.images import decode\n"
        "data = sys.stdin.buffer.read()\n"
        "for place in range(33, len(data), len(data) // 40):\n"
        "    bad = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1:]\n"
        "    try:\n"
        "        decode(bad)\n"
        "    except ImageDecodeError:\n"
        "        print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert done.stdout.split() == [b"refused"] * len(range(33, len(data), len(data) // 40))


def test_corrupt_bytes_never_escape_as_other_errors(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(7)
    names = ["jpeg q75 subsampling2", "png palette", "webp alpha", "gif", "tiff lzw", "bmp"]
    for name in names:
        whole = FORMATS[name](Image.fromarray(PHOTOS["odd"]))
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 700), 3):
                data[place] = rng.integers(256)
            try:
                image = decode(bytes(data), max_pixels=1 << 20)
            except ImageError:
                continue
            assert np.array_equal(hwc(image), pillow(bytes(data)))
    capfd.readouterr()


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8\xff", b"not an image", b"RIFF\0\0\0\0WEBP", b"GIF89a"]
)
def test_what_is_no_image(data: bytes) -> None:
    for read in (decode, image_size, lambda data, path: reencode(data, 10, path=path)):
        with pytest.raises(ImageDecodeError, match=r"n02/a\.jpg"):
            read(data, path="n02/a.jpg")


def test_truncated_files_stay_errors_where_pillow_is_told_to_load_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("png", "webp"):
        data = FORMATS[name](Image.fromarray(CHELSEA))
        with pytest.raises(ImageDecodeError, match="truncated"):
            decode(data[: len(data) // 2])
