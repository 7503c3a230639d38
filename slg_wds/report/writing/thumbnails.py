"""The gallery's pictures: small copies of the images, inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from slg_wds.images import LabelledImage
from slg_wds.images.header import MAX_PIXELS, allow_pixels, check_pixels, open_pillow, pillow_size
from slg_wds.report.reading.images import ImageReader
from slg_wds.report.writing.gallery import GalleryImage

SIDES = (400, 320, 240, 160)  # longer side of thumbnails in pixels; the first that fits the budget is taken
BUDGET = 2_600_000  # bytes of all thumbnails, before base64 adds a third


def add_thumbnails(
    images: Sequence[dict[str, Any]], choices: Sequence[GalleryImage], reader: ImageReader
) -> None:
    """Put a thumbnail of each image into its description, as a data URI. All together stay within BUDGET.

    Args:
        images: descriptions, as `gallery.describe` gives them.
        choices: the images of the descriptions.
        reader: where the images are read.

    Raises:
        ImageError: an image cannot be decoded, or is not the one that was labelled.
        StoreError: an image cannot be read.
    """
    if not images:
        return
    side = next((s for s in SIDES if len(images) * s * s * 0.16 < BUDGET), SIDES[-1])
    for image, choice in zip(images, choices, strict=True):
        data = thumbnail(reader.read(choice.row.number, choice.row.key), choice.row.image, side)
        image["src"] = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
    total = sum(len(image["src"]) for image in images)
    if total > BUDGET * 4 / 3:  # images of noise: take the smallest size and quality
        for image, choice in zip(images, choices, strict=True):
            again = reader.read(choice.row.number, choice.row.key)
            data = thumbnail(again, choice.row.image, SIDES[-1], 30)
            image["src"] = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail(data: bytes, labelled: LabelledImage, side: int, quality: int = 74) -> bytes:
    """Make a small WebP of an image. It keeps nothing of the file but pixels: no metadata.

    Args:
        data: the image file.
        labelled: which image was labelled.
        side: the longer side in pixels.
        quality: WebP quality, 0 to 100.

    Raises:
        ImageChangedError: the file is not the image that was labelled.
        ImageDecodeError, ImageTooLargeError: the file is no image, or the image is too large.
    """
    from PIL import Image

    from slg_wds.errors import ImageDecodeError

    key = labelled.key
    labelled.check(data)
    allow_pixels(MAX_PIXELS)
    with open_pillow(data, key) as image:
        check_pixels(pillow_size(image), MAX_PIXELS, key)
        labelled.check_size(pillow_size(image))
        try:
            image.draft("RGB", (side, side))
            small = image.convert("RGB")
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise nearly anything on bad bytes
            raise ImageDecodeError(f"cannot be decoded: {error or type(error).__name__}", key=key) from error
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()
