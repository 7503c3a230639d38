"""Reads the labelled images of a report, and checks that they are those that were labelled."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from slg_wds.console import counted
from slg_wds.errors import ImageChangedError, ImageSourceError, NotFoundError, UsageError
from slg_wds.images import LabelledImage
from slg_wds.report.reading.sets import ReportedSets
from slg_wds.store import Location

THREADS = 16
LISTED = 20


class ImageReader(Protocol):
    """Reads the images of the first set."""

    def read(self, number: int, key: str) -> bytes:
        """Read the file of an image, given by its number in the first set's plan. Raises SlgWdsError naming it."""


class EmbeddedImageReader:
    """Reads images that one of the sets embeds.

    Args:
        sets: the label sets.
        which: number of the set that embeds the images.
    """

    def __init__(self, sets: ReportedSets, which: int) -> None:
        self._set = sets.sets[which]

    def read(self, number: int, key: str) -> bytes:
        """Read the file of an image. Raises SlgWdsError naming it."""
        numbers = self._set.numbers([key], number)
        found = self._set.image([of_part[0] for of_part in numbers])
        if found is None:
            raise UsageError("the shard has no images, though the set embeds them", key=key)
        return found[0]


class ExternalImageReader:
    """Reads images from a location that the user names. Their paths below it are those of the first set's plan.

    Args:
        sets: the label sets.
        images: the location.

    Raises:
        SlgWdsError: the images are not there, or are not what the labels were made from.
    """

    def __init__(self, sets: ReportedSets, images: Location) -> None:
        from slg_wds.replay.sources.files import OpenFiles
        from slg_wds.replay.sources.images import open_replayed

        self._images = open_replayed(sets.first, images, OpenFiles())

    def read(self, number: int, key: str) -> bytes:
        """Read the file of an image. Raises SlgWdsError naming it."""
        return bytes(self._images.read(number, key))


def open_image_reader(sets: ReportedSets, images: Location | None) -> ImageReader | None:
    """Open the images at a location; without one, those of the first set that embeds images; None if no set does.

    Raises:
        SlgWdsError: the images are not there, or are not what the labels were made from.
    """
    if images is not None:
        return ExternalImageReader(sets, images)
    for which, labels in enumerate(sets.labels):
        if labels.identity.embed_images:
            return EmbeddedImageReader(sets, which)
    return None


def check_images(images: Sequence[tuple[int, LabelledImage]], reader: ImageReader) -> None:
    """Read every image and compare it with the one that was labelled.

    Args:
        images: each image's number in the first set's plan, and what its record says of it.
        reader: where they are read.

    Raises:
        ImageChangedError: some differ from the labelled ones. It names them.
        ImageSourceError: some are gone. It names them.
        StoreError: the store fails.
    """

    def state(image: tuple[int, LabelledImage]) -> str:
        number, labelled = image
        if labelled.crc32 is None:
            return ""  # nothing to compare with
        try:
            return "" if labelled.is_of(reader.read(number, labelled.key)) else "changed"
        except (NotFoundError, ImageSourceError):
            return "gone"

    with ThreadPoolExecutor(THREADS, "slg-read") as pool:
        states = list(zip(images, pool.map(state, images), strict=True))
    changed, gone = (
        [image.path for (_, image), found in states if found == kind] for kind in ("changed", "gone")
    )
    if changed:
        raise ImageChangedError(
            f"the bytes of {len(changed):,} of {counted(len(images), 'image')} are not those that were labelled: "
            f"{_listed(changed)}",
            hint="give the images that the labels were made from; slg-wds verify --images lists all of the set",
        )
    if gone:
        raise ImageSourceError(
            f"{len(gone):,} of {counted(len(images), 'image')} cannot be found: {_listed(gone)}",
            hint="give --images as generate was given it, put the images back, or leave --images out for a report "
            "without pictures; slg-wds verify --images lists all of the set",
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
