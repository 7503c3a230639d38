"""Image bytes -> pixels, exactly those of Pillow's `Image.open(f).convert("RGB")`, but for deep greys: see depth.py.

torchvision.io decodes what it is measured to decode bit for bit as Pillow does: JPEG (grey, CMYK, YCCK, progressive
too) and still WebP. All else goes to Pillow, PNG included: libpng inside torchvision ends the process on a damaged
file. When torchvision refuses a file, Pillow decides.
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
from slg_wds.images.depth import STRIP_PIXELS, is_deep, shallow
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
FILLINGS = (b"\x80" * 3, b"\x40" * 3)  # what libjpeg paints where the data ran out: of RGB or grey, of CMYK
HUFFMAN_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive
FILLER = bytes(range(1, 255, 2)) * 4


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, path: str = "") -> torch.Tensor:
    """Decode an image (its first frame) of one of `header.FORMATS`, told by content, never by name.

    Args:
        max_pixels: refuse images of more, before decoding.
        path: names the image in errors.

    Returns:
        uint8 [3, H, W] RGB of strides (1, 3W, 3): rows of whole pixels in memory, the layout that crops fastest.
        EXIF orientation is not applied; alpha is dropped. 16-bit greys are divided by 257.

    Raises:
        ImageDecodeError: not an image, or truncated or corrupt, or of grey levels without a known range.
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
        del image  # two of them at a time would take more memory than one of most pixels may
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
        quality: of the JPEG, 1..100.
        max_pixels: refuse images of more, before decoding.
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
    """The operators behind torchvision.io, None where this build lacks one.

    Its functions warn at every call since 0.29 that they will go one day; then Pillow decodes, to the same pixels.
    """
    import torch

    try:
        if not _loaded_alone():
            import torchvision.io  # noqa: F401  # loads the operators
    except ImportError:
        return {"JPEG": None, "WEBP": None}
    return {kind: getattr(torch.ops.image, f"decode_{kind.lower()}", None) for kind in ("JPEG", "WEBP")}


def _loaded_alone() -> bool:
    """Load the operators from torchvision's library, as its package does; False where the library is not found.

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
    """uint8 [3, H, W] of strides (1, 3W, 3), or None where torchvision cannot."""
    import torch

    decoder = torchvision_decoders().get(kind)
    if decoder is None:
        return None
    try:
        image: torch.Tensor = decoder(torch.frombuffer(bytearray(data), dtype=torch.uint8), TORCHVISION_RGB)
    except RuntimeError:
        return None
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # no copy when it is so already


def _from_pillow(data: bytes, max_pixels: int, path: str) -> torch.Tensor:
    """uint8 [3, H, W] of strides (1, 3W, 3)."""
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
    """(top, uint8 [h, W, 3]) of an RGB image: to numpy it goes by copies, which are to be small."""
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
            image = shallow(image, path)
        return image if image.mode == "RGB" else image.convert("RGB")
    except (MemoryError, ImageDecodeError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(str(error), key=path or None) from None
    except Exception as error:  # plugins let nearly any exception through on bad bytes
        raise ImageDecodeError(
            f"cannot be decoded: {error or type(error).__name__}", key=path or None
        ) from error


def _check_not_starved(data: bytes, path: str) -> None:
    """Raise ImageDecodeError if a JPEG's last pixel is grey because its data ended early before an end marker.

    Both libraries then only warn. Telling it from a picture that is grey there: bytes put in before the end marker
    change the pixels only where the decoder was still waiting for data.
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
        raise ImageDecodeError("truncated JPEG: its data end before the picture does", key=path or None)


def _digest(data: bytes, path: str) -> bytes:
    """SHA-256 of an image's pixels."""
    digest = hashlib.sha256()
    for _, strip in _strips(_to_rgb(open_pillow(data, path), path)):
        digest.update(strip.tobytes())
    return digest.digest()
