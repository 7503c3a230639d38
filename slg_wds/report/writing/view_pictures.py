"""The gallery's pictures of crops as the teacher saw them, where more was done to crops than cutting and mirroring."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.records.mixing import Mixing
from slg_wds.format.records.record import Record
from slg_wds.images import LabelledImage
from slg_wds.report.reading.images import ImageReader
from slg_wds.report.reading.sets import ReportedSets
from slg_wds.report.writing.gallery import GalleryImage
from slg_wds.transforms.drawn import DrawnCrops
from slg_wds.transforms.mixing import mix_partners

if TYPE_CHECKING:
    import torch

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
        numbers = np.array([crop["n"] for crop in image["crops"]], np.int64)
        views = _views(record, reader.read(choice.row.number, choice.row.key), numbers, side)
        if record.views is not None and record.views.mixing is not None:
            _mix(views, record.views.mixing[numbers], sets, reader)
        for crop, view in zip(image["crops"], views, strict=True):
            picture = _webp(view)
            crop["v"] = f"data:image/webp;base64,{base64.b64encode(picture).decode('ascii')}"


def _views(record: Record, data: bytes, numbers: NDArray[np.int64], side: int) -> torch.Tensor:
    """Return the pixels of some crops of an image before anything is mixed in, uint8 [n, 3, S, S]."""
    import torch

    pixels = LabelledImage.of(record).decode(data)
    out = torch.empty((len(numbers), side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    DrawnCrops.of(record)[numbers].cut(pixels, out, "bilinear")
    return out


def _mix(views: torch.Tensor, mixing: Mixing, sets: ReportedSets, reader: ImageReader) -> None:
    """Mix the crops' partners into their views [n]."""

    def crops_of(number: int, crops: NDArray[np.int64]) -> torch.Tensor:
        partner, key = sets.read_one(number).stored[0], sets.first.plan.keys[number]
        if partner is None:
            raise RecordError("a view has this image mixed in, which has no labels here", key=key)
        return _views(partner, reader.read(number, key), crops, views.shape[-1])

    mix_partners(views, mixing, crops_of)


def _webp(view: torch.Tensor) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(view.permute(1, 2, 0).numpy()).save(stream, "WEBP", quality=QUALITY, method=4)
    return stream.getvalue()
