"""The gallery's pictures of crops as the teacher saw them, where more was done to crops than cutting and mirroring."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from slg_wds.format.records.record import Record
from slg_wds.images import LabelledImage
from slg_wds.report.reading.images import ImageReader
from slg_wds.report.reading.sets import ReportedSets
from slg_wds.report.writing.gallery import GalleryImage
from slg_wds.transforms.drawn import DrawnCrops

SIDES = (96, 64, 48)  # of a view in pixels; the first that fits the budget is taken
BUDGET = 700_000  # bytes of all views, before base64 adds a third
QUALITY = 50  # of WebP
BYTES = 0.2  # of a pixel, about


def add_views(
    images: Sequence[dict[str, Any]],
    choices: Sequence[GalleryImage],
    sets: ReportedSets,
    reader: ImageReader,
) -> None:
    """Put a picture of each crop into its description, as a data URI. Sets without views get none.

    Args:
        images: descriptions, as `gallery.describe` gives them.
        choices: the images of the descriptions.
        sets: the label sets; the views of the first one are shown.
        reader: where the images are read.

    Raises:
        ImageError: an image cannot be decoded, or is not the one that was labelled.
        FormatError, StoreError: a record or an image cannot be read.
    """
    if not sets.first.has_views:
        return
    count = sum(len(image["crops"]) for image in images)
    side = next((side for side in SIDES if count * side * side * BYTES < BUDGET), SIDES[-1])
    for image, choice in zip(images, choices, strict=True):
        record = sets.read_one(choice.row.number).records[0]
        assert record is not None
        data = reader.read(choice.row.number, choice.row.key)
        numbers = [crop["n"] for crop in image["crops"]]
        for crop, picture in zip(image["crops"], _pictures(data, record, numbers, side), strict=True):
            crop["v"] = f"data:image/webp;base64,{base64.b64encode(picture).decode('ascii')}"


def _pictures(data: bytes, record: Record, numbers: list[int], side: int) -> list[bytes]:
    """Make WebP pictures of some crops of an image."""
    import torch
    from PIL import Image

    pixels = LabelledImage.of(record).decode(data)
    out = torch.empty((len(numbers), side, side, 3), dtype=torch.uint8)
    DrawnCrops.of(record)[np.array(numbers, np.int64)].cut(pixels, out.permute(0, 3, 1, 2), "bilinear")
    found = []
    for view in out.numpy():
        stream = io.BytesIO()
        Image.fromarray(view).save(stream, "WEBP", quality=QUALITY, method=4)
        found.append(stream.getvalue())
    return found
