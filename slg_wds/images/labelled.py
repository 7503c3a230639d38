"""Checks that a file is the image that was labelled, and decodes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from isal.isal_zlib import crc32 as crc32_of

from slg_wds.errors import ImageChangedError
from slg_wds.format.records.record import Record
from slg_wds.images.header import MAX_PIXELS
from slg_wds.images.pixels import decode

if TYPE_CHECKING:
    import torch

_HINT = "give the images that the labels were made from; slg-wds verify LABELS --images DATA lists all that differ"


class LabelledImage(NamedTuple):
    """What a record says about its image. Images are decoded for use with their labels only here.

    Attributes:
        key: the record's key.
        path: the image's path below its source.
        size: (height, width) in pixels.
        crc32: of the image file; None if the record has none, so that only the size can be compared.
    """

    key: str
    path: str
    size: tuple[int, int]
    crc32: int | None

    @classmethod
    def of(cls, record: Record) -> LabelledImage:
        """Return the image of a record."""
        return cls(record.key, record.path, record.size, record.image_crc32)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> LabelledImage:
        """Return the image of a record whose columns are not decoded, from its fields."""
        size = (fields["height"], fields["width"])
        return cls(fields["key"], fields["path"], size, fields.get("image_crc32"))

    def is_of(self, data: bytes | memoryview) -> bool:
        """Return whether these are the bytes that were labelled, as far as the record can tell."""
        return self.crc32 is None or crc32_of(data) == self.crc32

    def check(self, data: bytes | memoryview) -> None:
        """Raise ImageChangedError unless these are the bytes that were labelled."""
        if not self.is_of(data):
            raise ImageChangedError(
                f"{self.path} is not the image that was labelled: its bytes have the CRC-32 {crc32_of(data):08x}, "
                f"those labelled had {self.crc32:08x}",
                key=self.key,
                hint=_HINT,
            )

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise ImageChangedError unless (height, width) is that of the labelled image."""
        if size != self.size:
            raise ImageChangedError(
                f"the image has {size[0]} x {size[1]} pixels, and the labels were made of "
                f"{self.size[0]} x {self.size[1]}",
                key=self.key,
                hint=_HINT,
            )

    def decode(self, data: bytes) -> torch.Tensor:
        """Return the pixels, uint8 [3, H, W], of the labelled image.

        Raises:
            ImageChangedError: the bytes are those of another file.
            ImageDecodeError, ImageTooLargeError: as `decode`.
        """
        self.check(data)
        height, width = self.size
        pixels = decode(data, max_pixels=max(MAX_PIXELS, height * width), path=self.key)
        self.check_size((pixels.shape[1], pixels.shape[2]))
        return pixels
