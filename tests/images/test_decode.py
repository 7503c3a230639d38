"""Pixels: Pillow's `convert("RGB")` is the oracle for every format."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from slg_wds.format.shards.names import IMAGE_EXTS
from slg_wds.images import decode, image_extension, image_size, reencode
from slg_wds.images.pixels import torchvision_decoders
from support.images.encoded import hwc, saved
from support.images.formats import CHELSEA, FORMATS, PHOTOS, pillow

EXTENSIONS = {"jpeg": "jpg", "mpo": "jpg", "apng": "png", "pgm": "ppm", "tiff": "tif"}


@pytest.mark.parametrize("name", FORMATS)
def test_pixels_are_pillows(name: str) -> None:
    for photo in PHOTOS.values():
        data = FORMATS[name](Image.fromarray(photo))
        image = decode(data, path="a.jpg")
        height, width = photo.shape[:2]
        assert image.dtype == torch.uint8
        assert image.shape == (3, height, width)
        assert image.stride() == (1, 3 * width, 3)
        assert np.array_equal(hwc(image), pillow(data))
        assert image_size(data) == (height, width)
        assert image_extension(data) == EXTENSIONS.get(name.split()[0], name.split()[0])


def test_exif_orientation_is_not_applied() -> None:
    plain = Image.fromarray(CHELSEA)
    turned = FORMATS["jpeg exif"](plain)
    assert torch.equal(decode(turned), decode(saved(plain, "JPEG")))
    assert image_size(turned) == CHELSEA.shape[:2]


def test_bytes_like_input_is_taken() -> None:
    data = FORMATS["jpeg q75 subsampling2"](Image.fromarray(CHELSEA))
    assert torch.equal(decode(memoryview(data)), decode(data))  # type: ignore[arg-type]


def test_torchvision_decodes_jpeg_here() -> None:
    assert torchvision_decoders()["JPEG"] is not None


DECODERS = """
import sys
import slg_wds.images.pixels as pixels
if sys.argv[1] == "package":
    pixels.find_spec = lambda name: None  # the library is elsewhere
found = pixels.torchvision_decoders()
print("torchvision" in sys.modules, found["JPEG"] is not None)
import torchvision.io
print(found["JPEG"] == torchvision.io.image.torch.ops.image.decode_jpeg)
"""


@pytest.mark.parametrize("where", ["library", "package"])
def test_decoders_are_loaded_without_the_package_where_that_works(where: str) -> None:
    """Importing torchvision takes as long as importing torch; every worker starts with that."""
    said = subprocess.check_output([sys.executable, "-W", "error", "-c", DECODERS, where], text=True)
    assert said.split() == [str(where == "package"), "True", "True"]


def test_without_torchvision_decoders_the_pixels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slg_wds.images.pixels.torchvision_decoders", dict)
    for name in ("jpeg q75 subsampling2", "jpeg cmyk", "webp alpha"):
        data = FORMATS[name](Image.fromarray(CHELSEA))
        assert np.array_equal(hwc(decode(data)), pillow(data))


def test_pillow_warnings_are_not_shown_and_other_filters_stay() -> None:
    before = [item for item in warnings.filters if "PIL" not in str(item)]
    with pytest.warns(UserWarning, match="Transparency"):
        Image.open(io.BytesIO(FORMATS["png palette translucent"](Image.fromarray(CHELSEA)))).convert("RGB")
    decode(FORMATS["png palette translucent"](Image.fromarray(CHELSEA)))
    decode(FORMATS["png palette translucent"](Image.fromarray(CHELSEA)))
    assert [item for item in warnings.filters if "PIL" not in str(item)] == before
    assert sum("PIL" in str(item) for item in warnings.filters) == 1


def test_reencode_shrinks_only_what_is_larger() -> None:
    data = FORMATS["png"](Image.fromarray(CHELSEA))  # 300 x 451
    assert reencode(data, 451) is data
    small = reencode(data, 225, quality=85)
    assert image_extension(small) == "jpg"
    assert image_size(small) == (150, 225)
    expected = Image.fromarray(CHELSEA).resize((225, 150), Image.Resampling.LANCZOS)
    assert small == saved(expected, "JPEG", quality=85)
    assert image_size(reencode(FORMATS["jpeg q95 subsampling0"](Image.fromarray(CHELSEA[:2])), 9)) == (1, 9)
    alpha = reencode(FORMATS["png rgba"](Image.fromarray(CHELSEA)), 100)
    assert Image.open(io.BytesIO(alpha)).mode == "RGB"


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_reencode_gives_small_images_a_format_that_shards_take(kind: str) -> None:
    data = saved(Image.fromarray(CHELSEA), kind)
    assert image_extension(data) not in IMAGE_EXTS
    small = reencode(data, 1000, quality=85)
    assert image_extension(small) == "jpg"
    assert small == saved(Image.fromarray(decode(data).permute(1, 2, 0).numpy()), "JPEG", quality=85)


def test_a_jpeg_takes_few_calls_beside_that_of_torchvision() -> None:
    """Calls are counted, since a busy machine moves times. They were 30 when this was written."""
    data, calls = saved(Image.fromarray(CHELSEA[:16, :16]), "JPEG"), []
    decode(data)
    sys.setprofile(lambda _, event, __: calls.append(event) if event in ("call", "c_call") else None)
    try:
        decode(data)
    finally:
        sys.setprofile(None)
    assert 5 < len(calls) < 40
