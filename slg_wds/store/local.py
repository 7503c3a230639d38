"""A folder of a file system. An object appears in one step, by a hard link."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from slg_wds.errors import (
    InvalidNameError,
    NotFoundError,
    PermissionDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnsupportedStoreError,
)
from slg_wds.files import SpecialFileError, open_regular, reason_of
from slg_wds.store.base import (
    MAX_BYTES,
    TEMPORARY_AGE,
    TEMPORARY_PREFIX,
    Data,
    Entry,
    Store,
    buffers,
    check_name,
    check_prefix,
    check_range,
    is_temporary,
    out_of_range,
    too_large,
)

# EFBIG is the limit on the size of a file (of ulimit -f, or of the file system).
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_FAULT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
# link() fails with EPERM on a file system without hard links. Missing permissions would show earlier: when the
# temporary file is created.
_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EXDEV, errno.EMLINK)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class LocalStore(Store):
    """Objects as files below a folder. Folders are created as needed; links to files are followed."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def local_path(self, name: str) -> Path:
        """See `Store.local_path`."""
        return self.root / check_name(name)

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """See `Store.read`."""
        path = self.local_path(name)
        with _translated(path), open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise too_large(size, max_bytes, str(path))
            data = file.read(size)
        if len(data) != size:
            raise StoreUnavailableError(f"{len(data)} bytes could be read of {size}", url=str(path))
        return data

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """See `Store.read_range`."""
        check_range(offset, size)
        path = self.local_path(name)
        with _translated(path), open_regular(path) as file:
            total = os.fstat(file.fileno()).st_size
            if offset + size > total:
                raise out_of_range(offset, size, total, str(path))
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise StoreUnavailableError(f"{len(data)} bytes could be read of {size}", url=str(path))
        return data

    def size(self, name: str) -> int | None:
        """See `Store.size`."""
        path = self.local_path(name)
        try:
            with _translated(path):
                status = path.stat()
        except NotFoundError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def taken(self, name: str) -> bool:
        """See `Store.taken`."""
        path = self.local_path(name)
        with _translated(path):
            return _taken(path)

    def create(self, name: str, data: Data) -> bool:
        """See `Store.create`."""
        path = self.local_path(name)
        with _translated(path):
            if _taken(path):
                return False
            _make_folder(path.parent)
            with _temporary(path) as temporary:
                _write(temporary, buffers(data))
                made = _link(temporary, path)
            if not made:
                _taken(path)
            _sync_folder(path.parent)
        return made

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[Entry]:
        """See `Store.list`."""
        folder = check_prefix(prefix)
        found = _walk(self.root / folder, f"{folder}/" if folder else "", deep)
        return iter(sorted((entry for entry in found if not is_temporary(entry.name)), key=itemgetter(0)))

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        path = self.local_path(name)
        with contextlib.suppress(NotFoundError), _translated(path):
            path.unlink()

    def check_writable(self) -> None:
        """See `Store.check_writable`. Creates the folder too, and removes old temporary files."""
        with _translated(self.root):
            _make_folder(self.root)
            with _temporary(self.root / "probe") as source, _temporary(self.root / "probe") as target:
                _write(source, [memoryview(b"probe")])
                _link(source, target)
                now = source.stat().st_mtime  # by the file server's clock, which also sets the times of files
        self._remove_temporaries(now - TEMPORARY_AGE)

    def _remove_temporaries(self, before: float) -> None:
        """Remove the temporary files of killed writers that are older than a time (seconds since 1970)."""
        for name, _, modified in _walk(self.root, ""):
            if is_temporary(name) and modified < before:
                # Another process may remove it at the same time, or only its owner may remove it.
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    (self.root / name).unlink()


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file beside `path`. The file is removed at the end unless the process is killed."""
    stem = os.fsdecode(os.fsencode(path.name)[:100])  # the whole name stays below the limit of 255 bytes
    temporary = path.parent / f"{TEMPORARY_PREFIX}{stem}-{os.getpid()}-{secrets.token_hex(8)}"
    try:
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _write(path: Path, parts: Sequence[memoryview]) -> None:
    """Create a file of these bytes and sync it to the disk."""
    with open(path, "xb", buffering=0) as file:
        for part in parts:
            left = part
            while left:
                left = left[file.write(left) or 0 :]
        os.fsync(file.fileno())


def _link(temporary: Path, path: Path) -> bool:
    """Give a finished file its name. Return False if another file has the name."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # On NFS the reply to a successful link can be lost; then the client's second attempt finds that link.
        with contextlib.suppress(OSError):
            return os.path.samestat(temporary.lstat(), path.lstat())
        return False
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise UnsupportedStoreError(
                f"this file system makes no hard links ({error.strerror}), which atomic commits need",
                url=str(path.parent),
                hint="write to another file system or to object storage",
            ) from error
        raise
    return True


def _taken(path: Path) -> bool:
    """Return whether a file, or a link to one, has the name. Raises StoreError if something else has it."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    what = "a link that leads nowhere" if stat.S_ISLNK(status.st_mode) else "what is no file"
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        what = "a folder"
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{what} has the name of an object", url=str(path), hint="remove it, then run again")
    return True


def _make_folder(path: Path) -> None:
    """Create a folder and its parents, each durably."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        if path == path.parent:
            break
        path = path.parent
    for folder in reversed(missing):
        try:
            folder.mkdir()
        except FileExistsError:
            if not folder.is_dir():
                what = "a file" if folder.exists() else "a link that leads nowhere"
                raise StoreError(f"{what} lies where a folder is needed", url=str(folder)) from None
        except FileNotFoundError:  # /proc and the like
            raise StoreError("no folder can be made here", url=str(folder)) from None
        _sync_folder(folder.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:  # some network and FUSE file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def _walk(folder: Path, prefix: str, deep: bool = True) -> Iterator[Entry]:
    """Yield every file in a folder, and below it if `deep`; nothing if there is no such folder."""
    folders = []
    try:
        with _translated(folder), os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    if deep:
                        folders.append(entry.name)
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:  # removed meanwhile, or a dangling link
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield Entry(prefix + entry.name, status.st_size, status.st_mtime)
    except NotFoundError:
        return
    for name in folders:
        yield from _walk(folder / name, f"{prefix}{name}/")


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn the operating system's errors in the block into ours about `path`."""
    try:
        yield
    except OSError as error:
        raise _store_error(error, str(path)) from error


def _store_error(error: OSError, url: str) -> StoreError:
    reason = reason_of(error)
    if isinstance(error, SpecialFileError):
        return NotFoundError(f"no such file: {reason}", url=url)
    if error.errno in _ABSENT:
        return NotFoundError("no such file", url=url)
    if error.errno in _FULL:
        return StoreFullError(f"nothing more fits here: {reason}", url=url)
    if error.errno in _DENIED:
        return PermissionDeniedError(f"not permitted: {reason}", url=url)
    if error.errno in _FAULT:
        return StoreUnavailableError(f"the file system fails: {reason}", url=url)
    if error.errno == errno.ENAMETOOLONG:
        return InvalidNameError("the name is too long for this file system", url=url)
    return StoreError(f"the file system refuses: {reason}", url=url)
