"""Images in WebDataset shards, planned as they lie and read by range or by shard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from slg_wds.errors import ImageShardError, ImageSourceError, NoTargetsError
from slg_wds.format.manifest import Plan, StringColumn
from slg_wds.images.order import Targets, keys_of, map_targets
from slg_wds.images.samples import Scanned, scan_samples
from slg_wds.images.shard_files import TarFile
from slg_wds.images.tars import BLOCK, Ranges, check_header

LOCAL_WINDOW = 1 << 13
REMOTE_WINDOW = 1 << 20
SCANNERS = 16  # remote shards scanned at a time
WHOLE = 1 << 28  # a remote shard up to this is read in one go


class ShardSource:
    """Images in tars of WebDataset's layout; nothing is read before `plan`.

    Attributes:
        url: where they lie. classes: None, shards name no classes.
        ignored: tars of other splits, by count.
    """

    kind = "shards"
    classes: list[str] | None = None

    def __init__(
        self,
        url: str,
        tars: Sequence[TarFile],
        *,
        keep_extensions: bool = False,
        need_targets: bool = False,
        target_field: str | None = None,
        ignored: dict[str, int] | None = None,
    ) -> None:
        self.url, self.ignored = url, ignored or {}
        self._tars = {tar.name: tar for tar in tars}
        if len(self._tars) != len(tars):
            names = [tar.name for tar in tars]
            twice = next(name for name in names if names.count(name) > 1)
            raise ImageSourceError(f"two image shards are named {twice}", url=url)
        self._keep_extensions, self._need_targets = keep_extensions, need_targets
        self._target_field = target_field

    def plan(self, seed: int = 0, samples_per_shard: int = 0, *, target_of: Targets | None = None) -> Plan:
        """The samples as they lie, shard for shard; `seed` and `samples_per_shard` have no say in it.

        Every tar's headers are read through. `target_of` maps class numbers as for a folder.

        Raises:
            ImageShardError: a tar that is truncated, corrupt or holds a sample without an image.
            DuplicateKeyError: two samples of one key. NoTargetsError: targets are needed and one has none.
            StoreError: a tar that is not there or cannot be read.
        """
        tars = list(self._tars.values())
        workers = 1 if all(tar.store.is_local for tar in tars) else SCANNERS
        with ThreadPoolExecutor(workers) as pool:
            shards = list(pool.map(self._scan, tars))
        paths = [path for shard in shards for path in shard.paths]
        keys = keys_of(paths, self._keep_extensions, self.url)
        numbers = np.array([target for shard in shards for target in shard.targets], np.int64)
        if self._need_targets and (numbers < 0).any():
            without = paths[int(np.argmax(numbers < 0))]
            raise NoTargetsError(f"the sample of {without} has no target", url=self.url)
        return Plan(
            shard_names=[tar.name.removesuffix(".tar") for tar in tars],
            shard_sizes=np.array([len(shard.paths) for shard in shards], np.int64),
            paths=StringColumn.of(paths),
            keys=StringColumn.of(keys),
            targets=map_targets(numbers, target_of),
            source="shards",
            image_shards=[tar.name for tar in tars],
            image_offset=np.array([offset for shard in shards for offset in shard.offsets], np.int64),
            image_size=np.array([size for shard in shards for size in shard.sizes], np.int64),
        )

    def _scan(self, tar: TarFile) -> Scanned:
        size = tar.store.size(tar.path)
        if size is None:
            tar.store.read_range(tar.path, 0, 1)  # raises NotFoundError in the store's own words
            raise ImageShardError("its size is not known", url=tar.url)
        window = LOCAL_WINDOW if tar.store.is_local else REMOTE_WINDOW
        read = Ranges(lambda offset, count: tar.store.read_range(tar.path, offset, count), size, window)
        try:
            return scan_samples(read, self._target_field)
        except ImageSourceError as error:
            raise error.located(url=tar.url) from None

    def reader(self, plan: Plan, shard: int) -> Callable[[int], bytes]:
        """What reads the images of one shard, by their number in the plan; from any thread.

        A remote shard is read whole, once, at the first call, and let go when each image has been read.
        Raises ImageShardError for a source without this shard, and, as do its calls, one that changed since.
        """
        part = plan.shard(shard)
        tar = self._tars.get(part.image_shard or "")
        if tar is None or part.image_offset is None or part.image_size is None:
            raise ImageShardError(f"the image shard {part.image_shard} of the plan is not here", url=self.url)
        places = list(zip(part.image_offset.tolist(), part.image_size.tolist(), strict=True))
        whole = _Whole(tar, len(places))

        def read(number: int) -> bytes:
            offset, size = places[number - part.start]
            data = whole.read(offset - BLOCK, BLOCK + size)
            try:
                stated = check_header(data[:BLOCK], offset - BLOCK)
            except ImageShardError:
                stated = -1
            if stated not in (size, 0):  # PAX states sizes of 8 GiB and more elsewhere
                raise ImageShardError(f"no image at byte {offset}: it changed after planning", url=tar.url)
            return data[BLOCK:]

        return read


class _Whole:
    """Ranges of a tar; of a remote one in memory while not every image was read once."""

    def __init__(self, tar: TarFile, images: int) -> None:
        self._tar, self._left = tar, 0 if tar.store.is_local else images
        self._lock = threading.Lock()
        self._data: bytes | None = None

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            data = self._taken()
        if data is None:
            return self._tar.store.read_range(self._tar.path, offset, size)
        if offset + size > len(data):
            raise ImageShardError(f"truncated at byte {len(data)} after planning", url=self._tar.url)
        return data[offset : offset + size]

    def _taken(self) -> bytes | None:
        if self._left <= 0:
            return None
        if self._data is None:
            if (self._tar.store.size(self._tar.path) or WHOLE + 1) > WHOLE:
                self._left = 0
                return None
            self._data = self._tar.store.read(self._tar.path)
        self._left -= 1
        data = self._data
        if self._left == 0:
            self._data = None
        return data
