"""The image file of each sample: inside the label shards, or outside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from slg_wds.errors import ReplayError, UsageError
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.cache.caches import Caches
from slg_wds.replay.sources.external import ImageFiles, open_external
from slg_wds.replay.sources.files import Contents, OpenFiles
from slg_wds.replay.sources.label_sets import LabelSets, SamplePlace
from slg_wds.replay.sources.shards import ShardRange, Shards
from slg_wds.store import Location


class Images(Protocol):
    """The images of a label set, readable from any thread."""

    @property
    def remote(self) -> bool:
        """Whether reads go to a network, at least until a cache has the file."""

    @property
    def never_cached(self) -> bool:
        """Whether each read needs a network."""

    def ready(self, shard: int) -> bool:
        """Say whether the images of a shard can be read without waiting for a network longer than for its labels."""

    def read(self, samples: Sequence[SamplePlace]) -> Contents:
        """Return the image file of each sample. Raises a SlgWdsError that names it."""

    def url(self, sample: SamplePlace) -> str | None:
        """Return where the image of a sample lies; None inside the shard."""

    def forget(self, sample: SamplePlace) -> bool:
        """Drop the cached copy of a sample's image; return whether the image may have been read from one."""


class EmbeddedImages:
    """Images inside the label shards."""

    remote = never_cached = False  # the request for a record also fetches the image beside it

    def __init__(self, sets: LabelSets, shards: Shards) -> None:
        self._sets, self._shards = sets, shards

    def ready(self, shard: int) -> bool:
        """Say whether a read of this shard needs no waiting for a network."""
        return True

    def read(self, samples: Sequence[SamplePlace]) -> Contents:
        """Return the bytes of the image of each sample."""
        return self._shards.read([self.place(sample) for sample in samples])

    def url(self, sample: SamplePlace) -> str | None:
        """Return where the image of a sample lies; None inside the shard."""
        return None

    def forget(self, sample: SamplePlace) -> bool:
        """Drop the cached copy that the image was read from; return whether there was one."""
        return False  # cached shards are compared with the index

    def place(self, sample: SamplePlace) -> ShardRange:
        """Return where the image of a sample lies in the shard."""
        images = self._sets.shard(sample.shard).images
        if images is None:
            raise ReplayError("the shard has no images, though the set embeds them", key=sample.key)
        return ShardRange(sample.shard, sample.key, *images[sample.position].tolist())


class ExternalImages:
    """Images outside the label shards, found by the numbers that samples have in the plan."""

    def __init__(self, sets: LabelSets, files: ImageFiles) -> None:
        self._sets, self._files = sets, files
        self.remote = files.remote

    @property
    def never_cached(self) -> bool:
        """Whether each read needs a network."""
        return self._files.never_cached

    def ready(self, shard: int) -> bool:
        """Say whether a read of this shard needs no waiting for a network."""
        return self._files.ready(shard)

    def read(self, samples: Sequence[SamplePlace]) -> Contents:
        """Return the bytes of the image of each sample. Nothing but the labels says what they should be."""
        parts = [self._files.read(self._number(sample), sample.key) for sample in samples]
        return Contents(parts, [None] * len(parts))

    def url(self, sample: SamplePlace) -> str | None:
        """Return where the image of a sample lies; None inside the shard."""
        return self._files.url(self._number(sample))

    def forget(self, sample: SamplePlace) -> bool:
        """Drop the cached copy that the image was read from; return whether there was one."""
        return self._files.forget(self._number(sample))

    def _number(self, sample: SamplePlace) -> int:
        return self._sets.shard(sample.shard).numbers[sample.position]


def open_images(
    sets: LabelSets,
    shards: Sequence[Shards],
    images: Location | None,
    files: OpenFiles,
    caches: Caches,
) -> Images:
    """Open the images of a label set: the embedded ones if `images` is None, else those at that location.

    Raises:
        UsageError: the set has no images and none are given; also as `open_replayed`.
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
    """Open images outside the set as `open_external` does.

    Raises:
        UsageError: the labels were made from smaller copies of the images, which are inside the set.
    """
    embedding = labels.identity.embed_images or {}
    if embedding.get("max_side"):
        raise UsageError(
            f"the labels were made from the copies inside the set, of at most {embedding['max_side']} pixels a side, "
            "and do not fit other images",
            url=images.url,
            hint="leave out the images: the set has its own",
        )
    return open_external(labels, images, files, caches)
