"""Grey levels of more than 8 bits -> 8 bits, by the range of their format.

Pillow's `convert("RGB")` clips them at 255 instead: a 16-bit image would be almost all white, and one of floats from
0 to 1 black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from slg_wds.errors import ImageDecodeError

if TYPE_CHECKING:
    from PIL import Image

STRIP_PIXELS = 1 << 20
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF
DARK = 16  # an image whose brightest level is below range / DARK does not use the range of its format


def is_deep(image: Image.Image) -> bool:
    """Return whether an image has grey levels of more than 8 bits. Pillow itself reduces deeper colours to 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")


def to_8_bits(image: Image.Image, path: str) -> Image.Image:
    """Convert a loaded deep image to 8 bits (mode L): level x of the range 0..R becomes x * 255 / R, rounded.

    R is 4095 in 12-bit TIFF, else 65535.

    Args:
        image: loaded, of a mode for which `is_deep` holds.
        path: names the image in errors.

    Returns:
        The image in mode L, of the same size.

    Raises:
        ImageDecodeError: floats or 32-bit integers, whose format defines no range; or no level reaches a sixteenth of
            the range, as with 8-bit or 12-bit values stored in 16 bits, so that the result would be almost black.
    """
    from PIL import Image

    top = _range(image, path)
    white_is_zero = image.format == "TIFF" and _tag(image, PHOTOMETRIC) == 0
    out = np.empty((image.height, image.width), np.uint8)
    brightest = 0
    rows = max(1, STRIP_PIXELS // image.width)
    for above in range(0, image.height, rows):
        below = min(image.height, above + rows)
        levels = np.asarray(image.crop((0, above, image.width, below))).astype(np.int64)
        levels = np.clip(top - levels if white_is_zero else levels, 0, top)
        brightest = max(brightest, int(levels.max()))
        out[above:below] = (levels * 255 + top // 2) // top
    if 0 < brightest < top // DARK:
        raise ImageDecodeError(
            f"its grey levels end at {brightest} of {top}: scaled by that range it would be black",
            key=path or None,
            hint="store it with levels over the whole range, or in 8 bits",
        )
    return Image.fromarray(out)


def _range(image: Image.Image, path: str) -> int:
    """Return the level that is white, R. Raises ImageDecodeError if the format defines none."""
    if image.mode.startswith("I;16"):
        return 4095 if image.format == "TIFF" and _tag(image, BITS_PER_SAMPLE) == 12 else 65535
    if image.format == "PPM" and image.mode == "I":  # Pillow has scaled it by the file's own range
        return 65535
    what = "floating-point" if image.mode == "F" else "signed or 32-bit"
    raise ImageDecodeError(
        f"it has {what} grey levels, and nothing says which of them is white",
        key=path or None,
        hint="store it in 8 or 16 bits",
    )


def _tag(image: Any, number: int) -> object:
    value = image.tag_v2.get(number)
    return value[0] if isinstance(value, tuple) else value
