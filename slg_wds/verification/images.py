"""Are the images at a place those that a set's labels were made of? Every one that is not is told."""

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
    """Compares image files with the checksums that records have of them; of smaller copies, with their sources'.

    Raises UsageError for a set without such checksums, NoImagesError, ImageSourceError where the images are not there.
    """

    def __init__(self, labels: LabelSet, images: Location) -> None:
        if not labels.description.image_checksums:
            raise UsageError(
                "the label set has no checksums of its images, so there is nothing to compare --images with",
                url=labels.url,
            )
        self._images = open_external(labels, images, OpenFiles())

    def wrong(self, part: PlannedShard, records: Sequence[Mapping[str, Any]]) -> Iterator[Wrong]:
        """The images of a shard that are others, or cannot be read. records: their fields."""
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
    """Whether an error says that the image is another or gone, and not that its store fails."""
    return isinstance(error, (ImageError, ImageSourceError, NotFoundError))
