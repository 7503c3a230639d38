"""Remote files of a cache: whole and checked on local disk, one download at a time.

Two kinds are cached: the label shards of a set, whose SHA-256 the index gives, and tars of images, of which only the
server's version is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from slg_wds.errors import ChecksumError, NotFoundError
from slg_wds.files import open_regular
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.cache.directory import FULL, CacheDirectory, failure, remove, write_all
from slg_wds.store import Store

PIECE = 8 << 20  # bytes per request; an epoch that ends waits for at most one request of each thread
ATTEMPTS = 2


class Downloads(ABC):
    """Brings the remote file of each label shard into a cache directory.

    Args:
        labels: the set whose shards the files belong to; errors name it.
        directory: where the files go.

    Attributes:
        stopped: set by the cache to end downloads after the request that is under way.
    """

    def __init__(self, labels: LabelSet, directory: CacheDirectory) -> None:
        self.labels, self._directory = labels, directory
        self.stopped = False

    @abstractmethod
    def fetch(self, number: int, in_use: Callable[[], Set[str]]) -> Path | None:
        """Return the path of shard `number`'s file, downloaded if it is not there yet.

        Args:
            number: of the label shard.
            in_use: gives the paths that must not be removed to make room.

        Returns:
            The path, or None if `stopped` was set meanwhile.

        Raises:
            ChecksumError: two downloads had other bytes than the index states.
            NotCachedError: the directory cannot take the file.
            StoreError: the file cannot be downloaded.
        """

    @abstractmethod
    def discard(self, path: str) -> None:
        """React to a file that a reader found altered."""

    @abstractmethod
    def _read(self, number: int, offset: int, size: int) -> bytes:
        """Read a range of shard `number`'s remote file."""

    def _download(
        self,
        number: int,
        size: int,
        in_use: Callable[[], Set[str]],
        path_of: Callable[[str], Path | None],
    ) -> Path | None:
        """Download `size` bytes and give the file the path for its SHA-256. On a full disk, idle files make room.

        Returns:
            The path, or None if the download was stopped or `path_of` has no path for these bytes.
        """
        while True:
            try:
                return self._attempt(number, size, in_use, path_of)
            except OSError as error:
                if error.errno not in FULL or not self._directory.free(size, in_use()):
                    raise failure(error, self._directory.path) from error

    def _attempt(
        self, number: int, size: int, in_use: Callable[[], Set[str]], path_of: Callable[[str], Path | None]
    ) -> Path | None:
        state = hashlib.sha256()
        with self._directory.temporary(size, in_use) as (file, temporary):
            for offset in range(0, size, PIECE):
                if self.stopped:
                    return None
                piece = self._read(number, offset, min(PIECE, size - offset))
                state.update(piece)
                write_all(file, piece)
            path = path_of(state.hexdigest())
            if path is not None:
                temporary.replace(path)
        return path

    def _is_sound(self, path: Path, size: int, sha256: str) -> bool:
        """Return whether a file has `size` bytes with a SHA-256 that begins with `sha256`."""
        try:
            with open_regular(path) as file:
                state = hashlib.sha256()
                if os.fstat(file.fileno()).st_size == size:
                    while not self.stopped and (piece := file.read(PIECE)):
                        state.update(piece)
        except PermissionError as error:  # it could not be replaced either
            raise failure(error, path) from None
        except OSError:
            return False
        return state.hexdigest().startswith(sha256)


class LabelShardDownloads(Downloads):
    """The label shards of a set. A file's name holds the set's digest, and its bytes are those that the index states.

    Args:
        file: gives a shard's size in bytes and its SHA-256.
    """

    def __init__(
        self, labels: LabelSet, file: Callable[[int], tuple[int, str]], directory: CacheDirectory
    ) -> None:
        super().__init__(labels, directory)
        self._file = file

    def fetch(self, number: int, in_use: Callable[[], Set[str]]) -> Path | None:
        """Return the file of a label shard whose SHA-256 is that of the index; see `Downloads.fetch`."""
        size, sha256 = self._file(number)
        path = self._directory.path / f"slg-{self.labels.digest[:16]}-{self.labels.shard_name(number)}"
        if self._is_sound(path, size, sha256):
            return _used(path)
        for _ in range(ATTEMPTS):
            if self._download(number, size, in_use, lambda found: path if found == sha256 else None):
                return _used(path)
            if self.stopped:
                return None
        raise ChecksumError(f"its bytes are not the {size} of SHA-256 {sha256[:16]}... in the index")

    def discard(self, path: str) -> None:
        """Leave the file: the next fetch compares it with the index and replaces it."""

    def _read(self, number: int, offset: int, size: int) -> bytes:
        return self.labels.store.read_range(self.labels.shard_name(number), offset, size)


class ImageTarDownloads(Downloads):
    """The tars of images that label shards were made from.

    Nothing states what their bytes should be. So a file's name holds the state of its tar at the download: URL and
    version (the server's ETag), size and SHA-256. A tar that was replaced at its URL is downloaded again. Whether an
    image in it is the labelled one is checked when the image is read.

    Args:
        tars: store and name of each label shard's tar.
    """

    def __init__(
        self, labels: LabelSet, tars: Sequence[tuple[Store, str]], directory: CacheDirectory
    ) -> None:
        super().__init__(labels, directory)
        self._tars = tars

    def fetch(self, number: int, in_use: Callable[[], Set[str]]) -> Path | None:
        """Return the file of a tar as it now is at its URL; see `Downloads.fetch`."""
        store, name = self._tars[number]
        found = store.stat(name)
        if found is None:
            raise NotFoundError("no such object", url=store.url_of(name))
        size = found.size
        place = hashlib.sha256(f"{store.url_of(name)}\n{found.version}".encode()).hexdigest()[:16]
        start = f"slg-{place}-{size}-"
        for path in sorted(self._directory.path.glob(f"{start}*.tar")):
            if self._is_sound(path, size, path.stem[len(start) :]):
                return _used(path)
            if self.stopped:
                return None
            remove(path)
        downloaded = self._download(
            number, size, in_use, lambda sha256: self._directory.path / f"{start}{sha256[:32]}.tar"
        )
        return None if downloaded is None else _used(downloaded)

    def discard(self, path: str) -> None:
        """Remove the file: its checksum holds, so the next fetch would take it for the tar again."""
        remove(Path(path))

    def _read(self, number: int, offset: int, size: int) -> bytes:
        store, name = self._tars[number]
        return store.read_range(name, offset, size)


def _used(path: Path) -> Path:
    """Mark a file as used now, since the least recently used files are removed first."""
    with contextlib.suppress(OSError):
        os.utime(path)
    return path
