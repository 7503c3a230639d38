"""A photograph in every format and form that is decoded, as bytes."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

from support.images.encoded import chunk, png, png16, saved

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


def pillow(data: bytes) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
        if image.mode == "I;16":  # of which Pillow makes white
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        return np.asarray(image.convert("RGB"))
