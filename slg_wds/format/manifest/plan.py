"""The plan of a label set: which image is which sample of which shard."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import ManifestError
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.shards.names import is_below

FOLDER, SHARDS = "folder", "shards"
MAX_NAME_BYTES = 4096  # of a key or a path


@dataclass(frozen=True)
class PlannedShard:
    """What is planned for one shard: n images.

    Attributes:
        number: of the shard.
        name: of the shard, without ".tar".
        start: number of its first image in the plan.
        stop: number of the first image after it.
        keys: [n].
        paths: [n], below the source.
        targets: int32 [n], -1 for none.
        image_shard: the tar that the images lie in; None if they are single files. So are the next two.
        image_offset: int64 [n], where each image's bytes begin in that tar.
        image_size: int64 [n], bytes of each image.
    """

    number: int
    name: str
    start: int
    stop: int
    keys: list[str]
    paths: list[str]
    targets: NDArray[np.int32]
    image_shard: str | None
    image_offset: NDArray[np.int64] | None
    image_size: NDArray[np.int64] | None

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Plan:
    """N images as the samples of n shards, in shard order.

    Attributes:
        shard_names: [n], without ".tar".
        shard_sizes: int64 [n], images of each shard.
        paths: [N], below the source.
        keys: [N].
        targets: int32 [N], -1 for none.
        source: "folder", or "shards" if the images lie in tars; only then the next three are not None.
        image_shards: [n], the tar that the images of each shard lie in.
        image_offset: int64 [N], where each image's bytes begin in that tar.
        image_size: int64 [N], bytes of each image.
    """

    shard_names: list[str]
    shard_sizes: NDArray[np.int64]
    paths: StringColumn
    keys: StringColumn
    targets: NDArray[np.int32]
    source: str = FOLDER
    image_shards: list[str] | None = None
    image_offset: NDArray[np.int64] | None = None
    image_size: NDArray[np.int64] | None = None

    @property
    def num_samples(self) -> int:
        """Number of images, N."""
        return len(self.paths)

    @property
    def num_shards(self) -> int:
        """Number of shards, n."""
        return len(self.shard_names)

    @property
    def split(self) -> str:
        """The name of the split, with which the shards' names begin: train of train-000000."""
        return self.shard_names[0].rpartition("-")[0] or "train" if self.shard_names else "train"

    @functools.cached_property
    def starts(self) -> NDArray[np.int64]:
        """Number of the first image of each shard, and at the end the number of images: int64 [n + 1]."""
        return np.concatenate(([0], np.cumsum(self.shard_sizes, dtype=np.int64)))

    def place(self, number: int) -> tuple[int, int]:
        """Return the shard of image `number` and the image's position among those planned for that shard."""
        shard = int(self.starts.searchsorted(number, "right")) - 1
        return shard, number - int(self.starts[shard])

    def shard(self, number: int) -> PlannedShard:
        """Return what is planned for shard `number`."""
        start, stop = int(self.starts[number]), int(self.starts[number + 1])
        return PlannedShard(
            number=number,
            name=self.shard_names[number],
            start=start,
            stop=stop,
            keys=self.keys[start:stop],
            paths=self.paths[start:stop],
            targets=self.targets[start:stop],
            image_shard=None if self.image_shards is None else self.image_shards[number],
            image_offset=None if self.image_offset is None else self.image_offset[start:stop],
            image_size=None if self.image_size is None else self.image_size[start:stop],
        )

    def check(self) -> None:
        """Check that the parts agree. Raises ManifestError. That keys are distinct is not checked."""
        self.check_shards()
        if self.num_samples and min(_least(self.keys.lengths), _least(self.paths.lengths)) < 1:
            raise ManifestError("a key or a path is empty")
        if (
            self.num_samples
            and max(int(self.keys.lengths.max()), int(self.paths.lengths.max())) > MAX_NAME_BYTES
        ):
            raise ManifestError(f"a key or a path is over {MAX_NAME_BYTES} bytes")
        _check_below(self.paths)

    def check_shards(self) -> None:
        """Check all that `check` does but the keys and paths, which takes most of the time."""
        N, n = self.num_samples, self.num_shards
        counts = (len(self.keys), len(self.targets), len(self.shard_sizes), int(self.shard_sizes.sum()))
        if counts != (N, N, n, N):
            raise ManifestError(
                f"keys, targets, shards and their samples number {counts}, not {(N, N, n, N)}"
            )
        if len(set(self.shard_names)) != n or not are_shard_names(self.shard_names):
            raise ManifestError("the names of shards are not distinct plain names")
        if min(_least(self.shard_sizes), _least(self.targets) + 1) < 0:
            raise ManifestError("the size of a shard or a target is negative")
        self._check_source()

    def _check_source(self) -> None:
        external = (self.image_shards, self.image_offset, self.image_size)
        if self.source not in (FOLDER, SHARDS) or any(
            (part is None) != (self.source == FOLDER) for part in external
        ):
            raise ManifestError(f"the source {self.source!r} does not match where the images lie")
        if self.source == FOLDER:
            return
        shards, offset, size = cast("tuple[list[str], NDArray[np.int64], NDArray[np.int64]]", external)
        if (len(shards), len(offset), len(size)) != (self.num_shards, self.num_samples, self.num_samples):
            raise ManifestError("the image tars or the places in them do not match the samples")
        if min(_least(offset), _least(size)) < 0:
            raise ManifestError("the place of an image is negative")
        _check_below(shards)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return all(
            bool(a == b) if a is None or b is None or not isinstance(a, np.ndarray) else np.array_equal(a, b)
            for a, b in zip(self._parts(), other._parts(), strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def _parts(self) -> list[Any]:
        return [getattr(self, name) for name in self.__dataclass_fields__]


def _check_below(paths: Sequence[str]) -> None:
    # A path that is not below has a NUL, "..", "//", "/./", or a "." or "/" at an edge. If the joined text of all paths
    # has none of these, no single path need be checked.
    if isinstance(paths, StringColumn) and not (
        paths.mentions(0)
        or paths.repeats(ord("."))
        or paths.repeats(ord("/"))
        or b"/./" in paths.blob
        or paths.edges() & set(b"./")
    ):
        return
    for path in paths:
        if not is_below(path):
            raise ManifestError(f"{path!r} is not a path below the images' source")


def _least(numbers: NDArray[Any]) -> int:
    return int(numbers.min()) if len(numbers) else 0


def are_shard_names(names: Sequence[str]) -> bool:
    """Return whether these can be names of shards: one part of a path, without braces, which WebDataset expands."""
    text = "".join(names)
    return (
        all(0 < len(name) <= 200 for name in names)
        and text.isprintable()
        and not any(name.startswith(".") for name in names)
        and not set(text) & set("/\\{}")
    )
