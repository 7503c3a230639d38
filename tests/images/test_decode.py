"""Pixels: Pillow's `convert("RGB")` is the oracle for every format."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from sklearn.datasets import load_sample_image

from slg_wds.errors import ImageDecodeError, ImageError, ImageTooLargeError
from slg_wds.format.shards.names import IMAGE_EXTS
from slg_wds.images import MAX_PIXELS, decode, image_extension, image_size, reencode
from slg_wds.images.pixels import torchvision_decoders
from support.encoded import chunk, hwc, png, png16, saved

CHELSEA = skimage.data.chelsea()
PHOTOS = {
    "chelsea": CHELSEA,
    "astronaut": skimage.data.astronaut()[:200, 150:350],
    "china": load_sample_image("china.jpg")[100:300, 200:420],
    "odd": CHELSEA[:37, :41],
    "column": CHELSEA[100:200, :1],
    "row": CHELSEA[100:101, :99],
    "pixel": CHELSEA[:1, :1],
}
ORIENTATION_6 = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def cmyk(image: Image.Image) -> Image.Image:
    black = image.convert("L").point(lambda level: level // 2)
    return Image.merge("CMYK", [*image.convert("CMYK").split()[:3], black])


def without_adobe(data: bytes) -> bytes:
    place = data.index(b"\xff\xee")
    return data[:place] + data[place + 2 + int.from_bytes(data[place + 2 : place + 4], "big") :]


def ycck(data: bytes) -> bytes:
    """Say by the Adobe marker that the four channels are YCCK."""
    end = data.index(b"\xff\xee") + 2 + 14
    return data[: end - 1] + b"\x02" + data[end:]


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(image.convert("L"))
    return image


def grey_alpha(image: Image.Image) -> Image.Image:
    return Image.merge("LA", [image.convert("L"), image.convert("L").transpose(Image.Transpose.ROTATE_180)])


def png_bits(image: Image.Image, depth: int) -> bytes:
    levels = np.asarray(image.convert("L")) >> (8 - depth)
    bits = np.unpackbits(levels[..., None], axis=2)[..., 8 - depth :].reshape(image.height, -1)
    return png(0, depth, [row.tobytes() for row in np.packbits(bits, axis=1)], image.width)


def palette(image: Image.Image) -> Image.Image:
    return image.quantize(64)


FORMATS: dict[str, Callable[[Image.Image], bytes]] = {
    **{
        f"jpeg q{quality} subsampling{subsampling}{' progressive' * progressive}": (
            lambda im, q=quality, s=subsampling, p=progressive: saved(
                im, "JPEG", quality=q, subsampling=s, progressive=bool(p)
            )
        )
        for quality in (30, 75, 95)
        for subsampling in (0, 1, 2)
        for progressive in (0, 1)
    },
    "jpeg 411": lambda im: saved(im, "JPEG", subsampling="4:1:1"),
    "jpeg restarts": lambda im: saved(im, "JPEG", restart_marker_blocks=4),
    "jpeg rgb": lambda im: saved(im, "JPEG", keep_rgb=True),
    "jpeg grey": lambda im: saved(im.convert("L"), "JPEG"),
    "jpeg grey progressive": lambda im: saved(im.convert("L"), "JPEG", progressive=True),
    "jpeg cmyk": lambda im: saved(cmyk(im), "JPEG"),
    "jpeg cmyk progressive": lambda im: saved(cmyk(im), "JPEG", progressive=True),
    "jpeg cmyk no adobe": lambda im: without_adobe(saved(cmyk(im), "JPEG")),
    "jpeg ycck": lambda im: ycck(saved(cmyk(im), "JPEG")),
    "jpeg exif": lambda im: saved(im, "JPEG", exif=ORIENTATION_6),
    "jpeg trailing": lambda im: saved(im, "JPEG") + b"after the end\xff\xd8\xff\xd9",
    "mpo": lambda im: saved(
        im, "MPO", save_all=True, append_images=[im.transpose(Image.Transpose.ROTATE_180)]
    ),
    "png": lambda im: saved(im, "PNG"),
    "png rgba": lambda im: saved(with_alpha(im), "PNG"),
    "png grey": lambda im: saved(im.convert("L"), "PNG"),
    "png grey alpha": lambda im: saved(grey_alpha(im), "PNG"),
    "png 1 bit": lambda im: saved(im.convert("1"), "PNG"),
    "png palette": lambda im: saved(palette(im), "PNG"),
    **{
        f"png palette {bits} bits": (lambda im, b=bits: saved(im.quantize(2**b), "PNG", bits=b))
        for bits in (1, 2, 4)
    },
    **{f"png grey {bits} bits": (lambda im, b=bits: png_bits(im, b)) for bits in (1, 2, 4)},
    "png palette transparent": lambda im: saved(palette(im), "PNG", transparency=3),
    "png palette translucent": lambda im: saved(palette(im), "PNG", transparency=bytes(range(64))),
    "png rgb transparent": lambda im: saved(im, "PNG", transparency=tuple(np.asarray(im)[0, 0].tolist())),
    "png grey transparent": lambda im: saved(im.convert("L"), "PNG", transparency=30),
    "png grey 16": lambda im: png16(0, im.convert("L")),
    "png rgb 16": lambda im: png16(2, im),
    "png grey alpha 16": lambda im: png16(4, grey_alpha(im)),
    "png rgba 16": lambda im: png16(6, with_alpha(im)),
    "png gamma": lambda im: png(
        2,
        8,
        [row.tobytes() for row in np.asarray(im)],
        im.width,
        before=chunk(b"gAMA", struct.pack(">I", 30000)),
    ),
    "png trailing": lambda im: saved(im, "PNG") + b"after the end",
    "apng": lambda im: saved(
        im, "PNG", save_all=True, append_images=[im.transpose(Image.Transpose.ROTATE_180)]
    ),
    "webp": lambda im: saved(im, "WEBP", quality=80),
    "webp lossless": lambda im: saved(im, "WEBP", lossless=True),
    "webp alpha": lambda im: saved(with_alpha(im), "WEBP", quality=80),
    "webp alpha lossless": lambda im: saved(with_alpha(im), "WEBP", lossless=True),
    "webp alpha exact": lambda im: saved(with_alpha(im), "WEBP", lossless=True, exact=True),
    "webp animated": lambda im: saved(
        im, "WEBP", save_all=True, append_images=[im.transpose(Image.Transpose.ROTATE_180)]
    ),
    "gif": lambda im: saved(palette(im), "GIF"),
    "gif animated": lambda im: saved(
        im, "GIF", save_all=True, append_images=[im.transpose(Image.Transpose.ROTATE_180)]
    ),
    "bmp": lambda im: saved(im, "BMP"),
    "ppm": lambda im: saved(im, "PPM"),
    "pgm": lambda im: saved(im.convert("L"), "PPM"),
    "tiff": lambda im: saved(im, "TIFF"),
    "tiff lzw": lambda im: saved(im, "TIFF", compression="tiff_lzw"),
    "tiff cmyk": lambda im: saved(cmyk(im), "TIFF"),
    "tiff pages": lambda im: saved(im, "TIFF", save_all=True, append_images=[im.convert("L")]),
}
EXTENSIONS = {"jpeg": "jpg", "mpo": "jpg", "apng": "png", "pgm": "ppm", "tiff": "tif"}
TRUNCATED = [
    "jpeg q75 subsampling2",
    "jpeg q75 subsampling2 progressive",
    "jpeg restarts",
    "jpeg grey",
    "jpeg cmyk",
]
TRUNCATED += ["png", "png palette", "png grey", "png rgb 16", "webp", "webp lossless", "webp alpha"]


def pillow(data: bytes) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
        if image.mode == "I;16":  # of which Pillow makes white
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        return np.asarray(image.convert("RGB"))


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


def test_pillow_warnings_are_not_shown_and_other_filters_stay() -> None:
    before = [item for item in warnings.filters if "PIL" not in str(item)]
    with pytest.warns(UserWarning, match="Transparency"):
        Image.open(io.BytesIO(FORMATS["png palette translucent"](Image.fromarray(CHELSEA)))).convert("RGB")
    decode(FORMATS["png palette translucent"](Image.fromarray(CHELSEA)))
    decode(FORMATS["png palette translucent"](Image.fromarray(CHELSEA)))
    assert [item for item in warnings.filters if "PIL" not in str(item)] == before
    assert sum("PIL" in str(item) for item in warnings.filters) == 1


def test_truncated_files_stay_errors_where_pillow_is_told_to_load_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for name in ("png", "webp"):
        data = FORMATS[name](Image.fromarray(CHELSEA))
        with pytest.raises(ImageDecodeError, match="truncated"):
            decode(data[: len(data) // 2])


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


def test_overhead_over_torchvision_is_small() -> None:
    """On a picture so small that decoding it is nothing; the least of many times of both."""
    data = saved(Image.fromarray(CHELSEA[:16, :16]), "JPEG")
    decoder = torch.ops.image.decode_jpeg

    def bare() -> None:
        decoder(torch.frombuffer(bytearray(data), dtype=torch.uint8), 3)

    def least(run: Callable[[], object]) -> float:
        times = []
        for _ in range(2000):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        return min(times)

    decode(data)
    assert least(lambda: decode(data)) - least(bare) < 30e-6
