"""Bytes of the images of samples: inside the label shards, or outside of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from slg_wds.errors import ReplayError, UsageError
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.cache.caches import Caches
from slg_wds.replay.sources.external import ImageFiles, open_external
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.replay.sources.label_sets import LabelSets
from slg_wds.replay.sources.shards import CheckedRange, Shards
from slg_wds.store import Location


class Images(Protocol):
    """The images of a label set, readable from any thread. never_cached: each read of one needs a network."""

    @property
    def remote(self) -> bool: ...

    @property
    def never_cached(self) -> bool: ...

    def ready(self, shard: int) -> bool:
        """Whether reading from this shard's images needs no waiting for a network, beyond that for its labels."""

    def read(self, shard: int, position: int, key: str) -> bytes:
        """The bytes of the image of a sample. Raises SlgWdsError naming it."""

    def url(self, shard: int, position: int) -> str | None:
        """Where the image of a sample lies, None within the shard."""

    def forget(self, shard: int, position: int) -> bool:
        """Drop the cached copy that the image of a sample was read from; whether there was one."""


class EmbeddedImages:
    """Images inside the label shards."""

    remote = never_cached = False  # no more than the records beside them

    def __init__(self, sets: LabelSets, shards: Shards) -> None:
        self._sets, self._shards = sets, shards

    def ready(self, shard: int) -> bool:
        return True

    def read(self, shard: int, position: int, key: str) -> bytes:
        return self._shards.read(shard, self.place(shard, position, key), key)

    def url(self, shard: int, position: int) -> str | None:
        return None

    def forget(self, shard: int, position: int) -> bool:
        return False  # what is cached is compared with the index

    def place(self, shard: int, position: int, key: str) -> CheckedRange:
        """Where the image of a sample lies in the shard."""
        images = self._sets.shard(shard).images
        if images is None:
            raise ReplayError("the shard has no images, though the set embeds them", key=key)
        place: CheckedRange = images[position].tolist()
        return place


class ExternalImages:
    """Images outside the label shards, found by the numbers that samples have in the plan."""

    def __init__(self, sets: LabelSets, files: ImageFiles) -> None:
        self._sets, self._files = sets, files
        self.remote = files.remote

    @property
    def never_cached(self) -> bool:
        return self._files.never_cached

    def ready(self, shard: int) -> bool:
        return self._files.ready(shard)

    def read(self, shard: int, position: int, key: str) -> bytes:
        return self._files.read(self._number(shard, position), key)

    def url(self, shard: int, position: int) -> str | None:
        return self._files.url(self._number(shard, position))

    def forget(self, shard: int, position: int) -> bool:
        return self._files.forget(self._number(shard, position))

    def _number(self, shard: int, position: int) -> int:
        return self._sets.shard(shard).numbers[position]


def open_images(
    sets: LabelSets,
    shards: Sequence[Shards],
    images: Location | None,
    files: OpenFiles,
    caches: Caches,
) -> Images:
    """The images of a label set: embedded where `images` is None, else at that URL.

    Raises UsageError where none are embedded and none are given, and as `open_replayed`.
    """
    if images is not None:
        return ExternalImages(sets, open_replayed(sets.members[0], images, files, caches))
    if sets.embedded is None:
        raise UsageError(
            "the label set has no images in it",
            url=sets.url,
            hint="pass images=, the folder or the WebDataset shards that the labels were made from",
        )
    return EmbeddedImages(sets, shards[sets.embedded])


def open_replayed(
    labels: LabelSet, images: Location, files: OpenFiles, caches: Caches | None = None
) -> ImageFiles:
    """`open_external` of images whose pixels the labels are of. Raises UsageError where they are of smaller copies."""
    embedding = labels.identity.embed_images or {}
    if embedding.get("max_side"):
        raise UsageError(
            f"the labels are of the copies inside the set, of at most {embedding['max_side']} pixels a side, and not "
            "of other images",
            url=images.url,
            hint="leave out the images: the set has its own",
        )
    return open_external(labels, images, files, caches)
