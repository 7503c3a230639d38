"""Format and size of an image from its first bytes, before anything is decoded; checks that come before decoding."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from slg_wds.errors import ImageDecodeError, ImageTooLargeError

if TYPE_CHECKING:
    from PIL import Image

# Of one image file: MAX_PIXELS of 3 float32 each, uncompressed, take 0.8 GB.
MAX_IMAGE_BYTES = 1 << 30
MAX_PIXELS = 67_108_864  # 8192 x 8192: decoding takes up to 14 bytes a pixel, which stays below 1 GB

PILLOW = r"PIL\."
# The formats that Pillow may open, with its modules for them. All others are refused: for EPS, Pillow runs Ghostscript.
FORMATS = {
    "AVIF": "AvifImagePlugin",
    "BMP": "BmpImagePlugin",
    "GIF": "GifImagePlugin",
    "JPEG": "JpegImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
    "MPO": "MpoImagePlugin",
    "PNG": "PngImagePlugin",
    "PPM": "PpmImagePlugin",
    "TIFF": "TiffImagePlugin",
    "WEBP": "WebPImagePlugin",
}
# Chunks of a PNG that do not change pixels. Pillow refuses an image if they are large.
PNG_NOTES = frozenset((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"))
# The extension of any other format is its name in lower case.
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2", "TIFF": "tif"}
SIZED_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15; not DHT, JPG, DAC
SCAN, END = 0xDA, 0xD9
BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0..7, SOI: no length follows
UNSIZED = BARE_MARKERS | {0x00, SCAN, END, 0xFF}  # before the first size, these are not usual
_SEGMENT = struct.Struct(">BBH")  # a segment's beginning: 0xFF, its marker, its length from that field on
_SIZE = struct.Struct(">HH")  # height and width


def check_image_bytes(size: int, url: str) -> None:
    """Raise ImageTooLargeError for an image file of too many bytes, before they are read."""
    if size > MAX_IMAGE_BYTES:
        raise ImageTooLargeError(
            f"an image file of {size} bytes, over the limit of {MAX_IMAGE_BYTES}", url=url
        )


def sniff(data: bytes) -> str | None:
    """Return "JPEG", "PNG" or "WEBP" by the signature of a file; None for anything else."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def image_size(data: bytes, path: str = "") -> tuple[int, int]:
    """Return (height, width) in pixels from the header, without decoding. JPEG, PNG and WebP take microseconds.

    Args:
        data: the image file.
        path: names the image in errors.

    Raises:
        ImageDecodeError: no header of a known format, or a truncated one.
        ImageTooLargeError: more pixels than Pillow's own limit, in a format that only Pillow reads.
    """
    readers = {"JPEG": _jpeg_size, "PNG": _png_size, "WEBP": _webp_size}
    kind = sniff(data)
    if kind is None:
        return pillow_size(open_pillow(data, path))
    try:
        height, width = readers[kind](data)
    except (IndexError, ValueError, struct.error):
        raise ImageDecodeError(f"truncated {kind} header", key=path or None) from None
    if height < 1 or width < 1:
        raise ImageDecodeError(f"the {kind} header gives no size", key=path or None)
    return height, width


def is_jpeg_of(data: bytes | memoryview, size: Sequence[int]) -> bool:
    """Return whether a file begins with the usual header of a JPEG of this height and width in pixels.

    False also for the rare files that have bytes between their segments.
    """
    if data[:2] != b"\xff\xd8":
        return False
    place = 2
    try:
        while True:
            first, marker, length = _SEGMENT.unpack_from(data, place)
            if first != 0xFF or marker in UNSIZED:
                return False
            if marker in SIZED_MARKERS:
                return _SIZE.unpack_from(data, place + 5) == tuple(size)
            place += 2 + length
    except struct.error:
        return False


def image_extension(data: bytes, path: str = "") -> str:
    """Return the usual extension of a file's format, found from its content, without a dot: jpg, png, webp, ...

    Raises:
        ImageDecodeError, ImageTooLargeError: as `open_pillow`.
    """
    kind = sniff(data) or open_pillow(data, path).format or ""
    return EXTENSIONS.get(kind, kind.lower())


def check_pixels(size: tuple[int, int], max_pixels: int, path: str) -> None:
    """Raise ImageTooLargeError if (height, width) is more than `max_pixels`."""
    height, width = size
    if height * width > max_pixels:
        raise ImageTooLargeError(
            f"{width} x {height} pixels are more than the limit of {max_pixels}",
            key=path or None,
            hint="raise --max-pixels if the image is what it claims to be",
        )


def check_whole(data: bytes, path: str) -> None:
    """Raise ImageDecodeError for a truncated PNG or WebP, or a PNG with a chunk whose CRC is wrong.

    Pillow ignores damaged chunks of pixels and a missing end; libpng inside torchvision 0.29 crashes on them.
    """
    kind = sniff(data)
    if kind == "WEBP" and 8 + int.from_bytes(data[4:8], "little") > len(data):
        raise ImageDecodeError(f"truncated WEBP: only {len(data)} bytes are there", key=path or None)
    if kind == "PNG":
        _check_png(data, path)


def _check_png(data: bytes, path: str) -> None:
    """Check the length and CRC-32 of every chunk.

    `PIL.Image.verify` checks less: it stops before the CRC of the end chunk, so that a file cut or damaged there
    passes, and it is only called on files whose notes have been taken out (see `_without_notes`).
    """
    view = memoryview(data)
    place = 8
    while True:
        length = int.from_bytes(view[place : place + 4], "big")
        end = place + 12 + length
        if end > len(data):
            raise ImageDecodeError(f"truncated PNG: no end chunk in {len(data)} bytes", key=path or None)
        name = bytes(view[place + 4 : place + 8])
        if zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ImageDecodeError(
                f"corrupt PNG: wrong CRC of chunk {name!r} at byte {place}", key=path or None
            )
        if name == b"IEND":
            return
        place = end


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return height, width


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        width, height = 1 + low_w + (high_w << 16), 1 + low_h + (high_h << 16)
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return height, width


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, place in jpeg_segments(data):
        if marker in SIZED_MARKERS:
            height, width = struct.unpack_from(">HH", data, place + 3)
            return height, width
    return 0, 0


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield (marker, offset of its length field) of each segment, up to the first scan and including it.

    Bytes between segments are skipped, as libjpeg does. Raises IndexError or ValueError if the data is truncated.
    """
    place, marker = 2, 0
    while marker not in (SCAN, END):
        place = data.index(b"\xff", place) + 1
        marker = data[place]
        if marker == 0xFF:  # a fill byte
            continue
        place += 1
        yield marker, place
        if marker and marker not in BARE_MARKERS:
            place += int.from_bytes(data[place : place + 2], "big")


def open_pillow(data: bytes, path: str) -> Image.Image:
    """Open an image with Pillow, without decoding it. All images that Pillow reads are opened here.

    Raises:
        ImageDecodeError: the format is none of FORMATS.
        ImageTooLargeError: the image is above Pillow's own limit.
    """
    from PIL import Image, UnidentifiedImageError

    quiet_pillow()
    try:
        return Image.open(io.BytesIO(_without_notes(data)), formats=_pillow_formats())
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(str(error), key=path or None) from None
    except UnidentifiedImageError:
        what = f"not an image that can be read: it begins {data[:8]!r}" if data else "the file is empty"
        raise ImageDecodeError(what, key=path or None) from None
    except MemoryError:
        raise
    except Exception as error:  # on damaged files, plugins raise nearly any exception
        raise ImageDecodeError(f"not an image: {error or type(error).__name__}", key=path or None) from error


@functools.cache
def _pillow_formats() -> tuple[str, ...]:
    """Return those of FORMATS that this build of Pillow has."""
    from PIL import Image

    for module in FORMATS.values():
        with contextlib.suppress(ImportError):
            importlib.import_module(f"PIL.{module}")
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _without_notes(data: bytes) -> bytes:
    """Return a PNG without PNG_NOTES. Other files, and what follows a truncated chunk, are returned as they are."""
    if sniff(data) != "PNG":
        return data
    parts, start, place = [], 0, 8
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] in PNG_NOTES:
            parts.append(data[start:place])
            start = end
        place = end
    return b"".join((*parts, data[start:])) if parts else data


def allow_pixels(max_pixels: int) -> None:
    """Raise Pillow's own limit for this process to `max_pixels`; never lower it."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels


def pillow_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) of a Pillow image."""
    return image.height, image.width


def quiet_pillow() -> None:
    """Silence the warnings of Pillow's own modules (odd EXIF, palettes). Faults that matter raise errors.

    The filter stays for the process. `catch_warnings` would swap the filters of all threads at once.
    """
    if not any(getattr(item[3], "pattern", None) == PILLOW for item in warnings.filters):
        warnings.filterwarnings("ignore", module=PILLOW)
