"""Compares images with those that a set's labels were made from, and finds every one that differs or is gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from slg_wds.errors import ImageError, ImageSourceError, NotFoundError, SlgWdsError, UsageError
from slg_wds.format.manifest.plan import PlannedShard
from slg_wds.images import LabelledImage
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.sources.external import open_external
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.store import Location

READERS = 16  # threads
Wrong = tuple[str, SlgWdsError]  # a key, and what is wrong with the image


class ImageChecks:
    """Compares image files with the checksums in the records of one label set.

    If the set embeds shrunken copies, the checksums of the files they were made from are used.

    Args:
        labels: the label set.
        images: where the images are: what `generate` was given.

    Raises:
        UsageError: the set has no checksums of its images.
        ImageSourceError: there are no images at this place.
    """

    def __init__(self, labels: LabelSet, images: Location) -> None:
        if not labels.description.image_checksums:
            raise UsageError(
                "the label set has no checksums of its images, so there is nothing to compare --images with",
                url=labels.url,
            )
        self._images = open_external(labels, images, OpenFiles())

    def wrong(self, part: PlannedShard, records: Sequence[Mapping[str, Any]]) -> Iterator[Wrong]:
        """Find the images of a shard that differ from the labelled ones, or cannot be read.

        Args:
            part: the shard in the plan.
            records: the unpacked records of the images to compare.

        Yields:
            The key of an image and what is wrong with it.
        """
        number = dict(zip(part.keys, range(part.start, part.stop), strict=True))

        def compare(fields: Mapping[str, Any]) -> SlgWdsError | None:
            image = LabelledImage.of_fields(fields)
            if "source_crc32" in fields:
                image = image._replace(crc32=fields["source_crc32"])
            try:
                image.check(self._images.read(number[image.key], image.key))
            except SlgWdsError as error:
                return error
            return None

        with ThreadPoolExecutor(READERS, "slg-read") as pool:
            for fields, error in zip(records, pool.map(compare, records), strict=True):
                if error is not None:
                    yield fields["key"], error


def is_of_image(error: SlgWdsError) -> bool:
    """Return True if an error says that an image differs or is gone, False if it says that its store fails."""
    return isinstance(error, (ImageError, ImageSourceError, NotFoundError))
