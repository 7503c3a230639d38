"""Image bytes -> pixels, bit for bit those of Pillow's `Image.open(f).convert("RGB")`; for deep greys see depth.py.

torchvision.io decodes the formats in which it was measured to give Pillow's pixels to the bit: JPEG (with grey, CMYK,
YCCK and progressive ones) and still WebP. Pillow decodes all others. PNG is among them because libpng inside
torchvision ends the process on a damaged file. Pillow also decodes what torchvision refuses.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slg_wds.errors import ImageDecodeError, ImageTooLargeError
from slg_wds.format.shards.names import IMAGE_EXTS
from slg_wds.images.depth import STRIP_PIXELS, is_deep, to_8_bits
from slg_wds.images.header import (
    MAX_PIXELS,
    SCAN,
    allow_pixels,
    check_pixels,
    check_whole,
    image_extension,
    image_size,
    jpeg_segments,
    open_pillow,
    pillow_size,
    quiet_pillow,
    sniff,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image

TORCHVISION_RGB = 3  # torchvision.io.ImageReadMode.RGB
# The pixels that libjpeg writes after the end of the data: for RGB and grey, and for CMYK.
FILLINGS = (b"\x80" * 3, b"\x40" * 3)
HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
FILLER = bytes(range(1, 255, 2)) * 4


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, path: str = "") -> torch.Tensor:
    """Decode the first frame of an image. Its content, not its name, says which of `header.FORMATS` it has.

    Args:
        data: the image file.
        max_pixels: images with more pixels are refused before they are decoded.
        path: names the image in errors.

    Returns:
        RGB, uint8 [3, H, W] with strides (1, 3W, 3): the three values of a pixel are adjacent. Crops are cut fastest
        from that layout. EXIF orientation is not applied, alpha is dropped, and greys of more than 8 bits are
        scaled to 8.

    Raises:
        ImageDecodeError: not an image, truncated, corrupt, or with grey levels of unknown range.
        ImageTooLargeError: more than `max_pixels`.
    """
    data = bytes(data)
    kind = sniff(data)
    if kind is None:
        return _from_pillow(data, max_pixels, path)
    size = image_size(data, path)
    check_pixels(size, max_pixels, path)
    if kind != "JPEG":
        check_whole(data, path)
    image = _from_torchvision(data, kind)
    if image is None or tuple(image.shape) != (3, *size):
        return _from_pillow(data, max_pixels, path)
    if kind == "JPEG" and image.numpy()[:, -1, -1].tobytes() in FILLINGS:
        del image  # two decoded copies at once would exceed the memory that the largest image may take
        _check_not_starved(data, path)
        image = _from_torchvision(data, kind)
        assert image is not None
    return image


def reencode(
    data: bytes, max_side: int, quality: int = 90, *, max_pixels: int = MAX_PIXELS, path: str = ""
) -> bytes:
    """Return the image as a file that a shard can hold, with no side longer than `max_side`.

    An image that fits and has an embeddable format is returned as it is. All others become JPEGs: larger ones are
    shrunk (Lanczos), and small ones in a format that shards do not take (AVIF, JPEG 2000) keep their size.

    Args:
        data: the image file.
        max_side: the longest side allowed, in pixels.
        quality: Pillow's quality of the JPEG, 1..100.
        max_pixels: images with more pixels are refused before they are decoded.
        path: names the image in errors.

    Raises:
        ImageDecodeError, ImageTooLargeError: as `decode`.
    """
    from PIL import Image

    allow_pixels(max_pixels)
    height, width = image_size(data, path)
    if max(height, width) <= max_side and image_extension(data, path) in IMAGE_EXTS:
        return data
    pixels = decode(data, max_pixels=max_pixels, path=path).permute(1, 2, 0).numpy()  # H W 3
    scale = min(1.0, max_side / max(height, width))
    smaller = (max(1, round(width * scale)), max(1, round(height * scale)))
    out = io.BytesIO()
    Image.fromarray(pixels).resize(smaller, Image.Resampling.LANCZOS).save(out, "JPEG", quality=quality)
    return out.getvalue()


@functools.cache
def torchvision_decoders() -> dict[str, Callable[..., Any] | None]:
    """Return the operators behind torchvision.io by format; None for one that this build lacks.

    The functions of torchvision.io are not called: since 0.29 they warn at every call that they will be removed. Once
    they are removed, Pillow decodes to the same pixels.
    """
    import torch

    try:
        if not _loaded_alone():
            import torchvision.io  # noqa: F401  # loads the operators
    except ImportError:
        return {"JPEG": None, "WEBP": None}
    return {kind: getattr(torch.ops.image, f"decode_{kind.lower()}", None) for kind in ("JPEG", "WEBP")}


def _loaded_alone() -> bool:
    """Load the operators from torchvision's library, as its package does. Return False if they cannot be loaded.

    The package imports all of torchvision's models and torch.compile, which takes as long as importing torch.
    """
    import torch

    found = find_spec("torchvision")
    folders = (found and found.submodule_search_locations) or []
    for library in (path for folder in folders for path in Path(folder).glob("image*.so")):
        with contextlib.suppress(OSError):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    return hasattr(torch.ops.image, "decode_jpeg")


def _from_torchvision(data: bytes, kind: str) -> torch.Tensor | None:
    """Return uint8 [3, H, W] with strides (1, 3W, 3); None if torchvision cannot decode the image."""
    import torch

    decoder = torchvision_decoders().get(kind)
    if decoder is None:
        return None
    try:
        image: torch.Tensor = decoder(torch.frombuffer(bytearray(data), dtype=torch.uint8), TORCHVISION_RGB)
    except RuntimeError:
        return None
    # This copies nothing if the memory has this layout already.
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _from_pillow(data: bytes, max_pixels: int, path: str) -> torch.Tensor:
    """Return uint8 [3, H, W] with strides (1, 3W, 3)."""
    import torch

    allow_pixels(max_pixels)
    with open_pillow(data, path) as image:
        check_pixels(pillow_size(image), max_pixels, path)
        rgb = _to_rgb(image, path)
        pixels = np.empty((rgb.height, rgb.width, 3), np.uint8)
        for top, strip in _strips(rgb):
            pixels[top : top + len(strip)] = strip
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _strips(image: Image.Image) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.uint8]]]]:
    """Yield an RGB image in strips (top, uint8 [h, W, 3]): numpy gets copies, which should be small."""
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        part = image if bottom - top == image.height else image.crop((0, top, image.width, bottom))
        yield top, np.asarray(part)


def _to_rgb(image: Image.Image, path: str) -> Image.Image:
    from PIL import Image

    quiet_pillow()
    try:
        image.load()
        if is_deep(image):
            image = to_8_bits(image, path)
        return image if image.mode == "RGB" else image.convert("RGB")
    except (MemoryError, ImageDecodeError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(str(error), key=path or None) from None
    except Exception as error:  # on damaged files, plugins raise nearly any exception
        raise ImageDecodeError(
            f"cannot be decoded: {error or type(error).__name__}", key=path or None
        ) from error


def _check_not_starved(data: bytes, path: str) -> None:
    """Raise ImageDecodeError if a JPEG's data ends too early before its end marker, so that its last pixel is grey.

    Both libraries only warn about it. An image whose last pixel really is grey differs in this: bytes that are inserted
    before its end marker change no pixel, since its decoder needs no more data.
    """
    segments = dict(jpeg_segments(data))
    end = data.find(b"\xff\xd9", segments.get(SCAN, len(data)))
    if end < 0 or HUFFMAN_FRAMES.isdisjoint(segments):
        return
    restarts = b"".join(bytes((0xFF, 0xD0 + n)) + FILLER for n in range(8))
    padded = data[:end].rstrip(b"\xff") + FILLER + restarts + data[end:]
    try:
        starved = _digest(padded, path) != _digest(data, path)
    except ImageDecodeError:
        return
    if starved:
        raise ImageDecodeError("truncated JPEG: its data ends before the picture does", key=path or None)


def _digest(data: bytes, path: str) -> bytes:
    """Return the SHA-256 of an image's pixels."""
    digest = hashlib.sha256()
    for _, strip in _strips(_to_rgb(open_pillow(data, path), path)):
        digest.update(strip.tobytes())
    return digest.digest()
