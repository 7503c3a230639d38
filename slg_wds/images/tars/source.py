"""Images in WebDataset tars: planned in the order of the tars, read by range or by whole tar."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.config import SourceConfig
from slg_wds.console import counted
from slg_wds.errors import (
    DuplicateKeyError,
    ImageDecodeError,
    ImageShardError,
    ImageSourceError,
    NoTargetsError,
    UsageError,
)
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.images.classes import WORDNET_ID
from slg_wds.images.folder import no_images
from slg_wds.images.header import check_image_bytes
from slg_wds.images.order import TargetOf, check_distinct, make_keys, map_targets
from slg_wds.images.tars.files import TarFile, find_tars, label_shard_names
from slg_wds.images.tars.reader import BLOCK, RangeReader, stated_size
from slg_wds.images.tars.sample_targets import number_targets, parse_target_field
from slg_wds.images.tars.samples import SampleFields, ScannedTar, scan_samples

LOCAL_WINDOW = 1 << 13  # bytes
REMOTE_WINDOW = 1 << 20  # bytes
SCANNERS = 16  # remote tars that are scanned at the same time
WHOLE = 1 << 28  # bytes; a remote tar of at most this size is read in one request


class ShardSource:
    """Images in tars of WebDataset's layout. All headers are read when `classes` or `plan` is first needed.

    Attributes:
        url: where the tars are.
        ignored: number of files and folders beside the tars that are not used, by kind. Once the headers are read, also
            that of members in the tars.
        gone: always empty: a tar that is gone is an error.
    """

    kind = "shards"
    gone: Sequence[str] = ()

    def __init__(
        self,
        url: str,
        tars: Sequence[TarFile],
        options: SourceConfig,
        *,
        need_targets: bool = False,
        skip: bool = False,
        ignored: Mapping[str, int] | None = None,
    ) -> None:
        """Check the options; nothing is read yet.

        Args:
            url: where the tars are, for messages.
            tars: the tars, whose names are distinct.
            options: how keys are made, and which members are images and targets.
            need_targets: whether to refuse samples without a target.
            skip: whether to plan samples without an image, to leave them out later.
            ignored: number of files and folders beside the tars that are not used, by kind.

        Raises:
            ImageSourceError: two tars with the same name.
            UsageError: options that do not apply to tars.
        """
        if options.list_file:
            raise UsageError("--list does not go with image shards", url=url)
        self.url, self.ignored = url, Counter(ignored or {})
        self._tars = {tar.name: tar for tar in tars}
        if len(self._tars) != len(tars):
            [(twice, _)] = Counter(tar.name for tar in tars).most_common(1)
            raise ImageSourceError(f"two image shards are named {twice}", url=url)
        self._options, self._need_targets = options, need_targets
        self._fields = _fields(options, skip)
        self._found: _Samples | None = None

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes in the order of their numbers; None if targets are class numbers."""
        if self._fields.names or self._are_classes:
            return self._scanned().classes
        return None

    @property
    def _are_classes(self) -> bool:
        """Whether each tar is named like a class of ImageNet: n01440764.tar."""
        if self._fields.target is None:
            return False
        return bool(self._tars) and all(WORDNET_ID.fullmatch(tar.base) for tar in self._tars.values())

    def plan(self, seed: int = 0, samples_per_shard: int = 0, *, target_of: TargetOf | None = None) -> Plan:
        """Plan the samples in the order of the tars, one label shard per tar. All headers of the tars are read.

        Args:
            seed: not used: nothing is shuffled.
            samples_per_shard: not used: tars stay as they are.
            target_of: the target of each class number, None for no target; None: the number itself.

        Raises:
            ImageShardError: a tar that is truncated or corrupt, or has a sample without an image.
            NoImagesError: the tars have no sample.
            DuplicateKeyError: two samples with the same key.
            NoTargetsError: targets are needed, and a sample has none.
            ImageSourceError: a tar whose name no label shard can have, or targets that are invalid.
            StoreError: a tar that is not there or cannot be read.
        """
        names = label_shard_names(list(self._tars.values()), self.url)
        scanned, self._found = self._scanned(), None  # frees the names of millions of images
        keys = make_keys(scanned.paths, self._options.keep_extensions, self.url)
        if len(set(keys)) != len(keys):
            self._refuse_restart(keys, scanned.shard_sizes)
            check_distinct(scanned.paths, keys, self._options.keep_extensions, self.url)
        if self._need_targets and (scanned.numbers < 0).any():
            without = scanned.paths[int(np.argmax(scanned.numbers < 0))]
            raise NoTargetsError(
                f"the sample of {without} has no target",
                url=self.url,
                hint="--target-field names the member that says the class",
            )
        try:
            targets = map_targets(scanned.numbers, target_of)
        except ImageSourceError as error:
            raise error.located(url=self.url) from None
        return Plan(
            shard_names=names,
            shard_sizes=np.array(scanned.shard_sizes, np.int64),
            paths=StringColumn.of(scanned.paths),
            keys=StringColumn.of(keys),
            targets=targets,
            source="shards",
            image_shards=list(self._tars),
            image_offset=np.array(scanned.offsets, np.int64),
            image_size=np.array(scanned.sizes, np.int64),
        )

    def _scanned(self) -> _Samples:
        if self._found is None:
            tars = list(self._tars.values())
            workers = 1 if all(tar.store.is_local for tar in tars) else SCANNERS
            with ThreadPoolExecutor(workers) as pool:
                shards = list(pool.map(self._scan, tars))
            self._found = self._joined(tars, shards)
        return self._found

    def _joined(self, tars: list[TarFile], shards: list[ScannedTar]) -> _Samples:
        for shard in shards:
            self.ignored += shard.passed_over
        without = [error for shard in shards for error in shard.without_image]
        paths = [path for shard in shards for path in shard.paths]
        if not paths:
            raise no_images(self.url, self.ignored)
        if without and len(without) == len(paths):
            raise without[0]
        targets = [target for shard in shards for target in shard.targets]
        target = self._fields.target
        if (target and target.from_tar) or (self._are_classes and not any(t is not None for t in targets)):
            targets = [tar.base for tar, shard in zip(tars, shards, strict=True) for _ in shard.paths]
        try:
            classes, numbers = number_targets(targets, self._options.class_map is not None)
        except ImageSourceError as error:
            raise error.located(url=self.url) from None
        return _Samples(
            shard_sizes=[len(shard.paths) for shard in shards],
            paths=paths,
            offsets=[offset for shard in shards for offset in shard.offsets],
            sizes=[size for shard in shards for size in shard.sizes],
            classes=classes,
            numbers=numbers,
        )

    def _scan(self, tar: TarFile) -> ScannedTar:
        size = tar.store.size(tar.path)
        if size is None:
            tar.store.read_range(tar.path, 0, 1)  # raises NotFoundError in the store's own words
            raise ImageShardError("its size is not known", url=tar.url)
        window = LOCAL_WINDOW if tar.store.is_local else REMOTE_WINDOW
        read = RangeReader(lambda offset, count: tar.store.read_range(tar.path, offset, count), size, window)
        try:
            scanned = scan_samples(read, self._fields)
        except ImageSourceError as error:
            raise error.located(url=tar.url) from None
        for lacking in scanned.without_image:
            lacking.located(url=tar.url)
        if self._options.prefix_keys:
            scanned.paths = [f"{tar.stem}/{path}" for path in scanned.paths]
        return scanned

    def _refuse_restart(self, keys: Sequence[str], shard_sizes: Sequence[int]) -> None:
        """Raise DuplicateKeyError if two tars have a key in common. Often each tar numbers its samples from 0."""
        tar_of = np.repeat(np.arange(len(shard_sizes)), shard_sizes).tolist()
        first: dict[str, int] = {}
        pairs = [
            (key, first[key], tar)
            for key, tar in zip(keys, tar_of, strict=True)
            if first.setdefault(key, tar) != tar
        ]
        if not pairs:
            return
        names = list(self._tars)
        key, one, other = pairs[0]
        more = f" (and so do {counted(len(pairs) - 1, 'more key')})" if len(pairs) > 1 else ""
        raise DuplicateKeyError(
            f"the key {key} is in {names[one]} and in {names[other]}{more}",
            url=self.url,
            hint="--prefix-keys puts the tar's name before each key",
        )

    def reader(self, plan: Plan, shard: int) -> Callable[[int], bytes]:
        """Return a function that reads the images of one shard by their number in the plan; any thread may call it.

        A remote tar of at most WHOLE bytes (256 MiB) is read in one request, at the first call, and freed when each
        image has been read once. All others are read by range.

        Raises:
            ImageShardError: the source does not have the shard's tar. The function raises it if the tar has changed
                since it was planned.
        """
        part = plan.shard(shard)
        name = part.image_shard or ""
        tar = self._tars.get(name) or self._tars.get(find_tars([name], self._tars).get(name, ""))
        if tar is None or part.image_offset is None or part.image_size is None:
            raise ImageShardError(f"the image shard {part.image_shard} of the plan is not here", url=self.url)
        places = list(zip(part.image_offset.tolist(), part.image_size.tolist(), strict=True))
        tar_bytes = _TarBytes(tar, len(places))

        def read(number: int) -> bytes:
            offset, size = places[number - part.start]
            check_image_bytes(size, tar.url)
            data = tar_bytes.read(offset - BLOCK, BLOCK + size)
            stated = stated_size(data[:BLOCK], offset - BLOCK)
            if size == 0 and stated > 0:  # planned by `skip`
                raise ImageDecodeError("the sample has no image", url=tar.url)
            if stated not in (size, 0):
                raise ImageShardError(f"no image at byte {offset}: it changed after planning", url=tar.url)
            return data[BLOCK:]

        return read


@dataclass
class _Samples:
    """The N samples of all n tars.

    Attributes:
        shard_sizes: number of samples of each tar, [n].
        paths, offsets, sizes: of the images, [N].
        classes: names of the classes; None if targets are numbers.
        numbers: class number of each sample, int64 [N], -1 for none.
    """

    shard_sizes: list[int]
    paths: list[str]
    offsets: list[int]
    sizes: list[int]
    classes: list[str] | None
    numbers: NDArray[np.int64]


def _fields(options: SourceConfig, skip: bool) -> SampleFields:
    """Return which members the options name as image and target. Raises UsageError."""
    target = None if options.no_targets else parse_target_field(options.target_field)
    names = options.target_field is not None or options.class_map is not None
    if options.image_field is None:
        return SampleFields(target=target, names=names, skip=skip)
    image = tuple(part.strip().removeprefix(".").lower() for part in options.image_field.split(","))
    if "" in image:
        raise UsageError(
            f"--image-field {options.image_field!r} names no extension", hint="for example jpg,png"
        )
    return SampleFields(image, target, names, skip)


class _TarBytes:
    """Reads ranges of a tar. A remote one of at most WHOLE bytes stays in memory until all images are read."""

    def __init__(self, tar: TarFile, images: int) -> None:
        self._tar, self._left = tar, 0 if tar.store.is_local else images
        self._lock = threading.Lock()
        self._data: bytes | None = None

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            data = self._whole()
        if data is None:
            return self._tar.store.read_range(self._tar.path, offset, size)
        if offset + size > len(data):
            raise ImageShardError(f"truncated at byte {len(data)} after planning", url=self._tar.url)
        return data[offset : offset + size]

    def _whole(self) -> bytes | None:
        """Return the whole tar for one more image; None if it is read by range."""
        if self._left <= 0:
            return None
        if self._data is None:
            if (self._tar.store.size(self._tar.path) or WHOLE + 1) > WHOLE:
                self._left = 0
                return None
            self._data = self._tar.store.read(self._tar.path, WHOLE)
        self._left -= 1
        data = self._data
        if self._left == 0:
            self._data = None
        return data
