"""The files below a folder, local or in object storage. Listing gives names and opens no file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Protocol

from slg_wds.errors import (
    ImageSourceError,
    NoImagesError,
    NotFoundError,
    PermissionDeniedError,
    StoreError,
)
from slg_wds.files import SpecialFileError, read_file
from slg_wds.images.header import MAX_IMAGE_BYTES, check_image_bytes
from slg_wds.store import Location, Store

# Folders that operating systems and tools add to data sets. They are hidden, as are all that begin with a dot.
SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
)
_HIDDEN = re.compile(rf"(?:^|/)(?:\.[^/]*|{'|'.join(map(re.escape, sorted(SYSTEM_FOLDERS)))})/")
APPLE_DOUBLE = "._"  # prefix of the files in which macOS keeps metadata
LABEL_SET = ("slg.json", "plan")  # a folder with both files is a label set


class Tree(Protocol):
    """The files below a folder, without hidden folders, label sets and `left_out`.

    Names are relative to `url`, their parts separated by `/`.

    Attributes:
        url: of the folder.
        left_out: the folder below this one that labels are written to, ending in `/`; None if they go elsewhere.
    """

    url: str
    left_out: str | None

    def folders(self) -> list[str]:
        """Return the names of the folders directly below, sorted."""

    def files(self) -> list[str]:
        """Return the names of the files directly below, sorted."""

    def walk(self) -> Iterator[str]:
        """Yield the name of every file at any depth, in no particular order.

        For a hidden folder or a label set, only its own name is given, ending in `/`.

        Raises:
            ImageSourceError, StoreError: a folder cannot be listed, or a link leads back to a folder that contains it.
        """

    def below(self, folder: str) -> Tree:
        """Return the tree of one of its folders."""

    def read(self, name: str) -> bytes:
        """Return the bytes of a whole file.

        Raises:
            NotFoundError: there is no such file.
            ImageTooLargeError: a local file has more than MAX_IMAGE_BYTES.
            StoreError: the file cannot be read; ObjectTooLargeError: a remote file has more than MAX_IMAGE_BYTES.
        """

    def url_of(self, name: str) -> str:
        """Return the URL of a file, as errors name it."""

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name. Raises StoreError if that cannot be found out."""

    def names(self, folder: str) -> frozenset[str]:
        """List a folder below this one ("" is this one) again, and return the names directly in it.

        Raises:
            ImageSourceError, StoreError: it cannot be listed.
        """

    def is_empty(self) -> bool:
        """Look again, and return whether the folder is empty."""


def is_hidden(folder: str) -> bool:
    """Return whether a folder of this name, without its path, is hidden."""
    return folder.startswith(".") or folder in SYSTEM_FOLDERS


def open_tree(location: Location, left_out: Location | None = None) -> Tree:
    """Return the tree of a folder.

    Args:
        location: where the folder is.
        left_out: where labels are written to; it may be below the folder.

    Raises:
        NoImagesError: a local folder that is not there.
        UsageError: a URL or option that no store takes.
    """
    store = location.open()
    out = left_out.open() if left_out else None
    if not store.is_local:
        root = f"{store.url.rstrip('/')}/"
        inside = out is not None and f"{out.url}/".startswith(root)
        return RemoteTree(store, left_out=f"{out.url.rstrip('/')}/"[len(root) :] if out and inside else None)
    root = store.url
    if not os.path.isdir(root):  # noqa: PTH112
        there = os.path.lexists(root)
        raise NoImagesError(
            "a folder of images was expected, not a file" if there else "no such folder", url=location.url
        )
    return LocalTree(root, os.path.realpath(out.url) if out is not None and out.is_local else None)


class LocalTree:
    """A folder on disk. Links to folders are followed, as torchvision's ImageFolder does."""

    def __init__(self, root: str, out: str | None = None) -> None:
        self.url, self._out = root, out
        inside = os.path.relpath(out, os.path.realpath(root)) if out else "."
        self.left_out = None if inside.split("/")[0] in (".", "..") else f"{inside}/"

    def folders(self) -> list[str]:
        """See `Tree.folders`."""
        found, _, linked = scan(self.url)
        return sorted(name for name in found if not self._is_skipped(name, name in linked))

    def _is_skipped(self, name: str, linked: bool) -> bool:
        path = self.url_of(name)
        if is_hidden(name) or f"{name}/" == self.left_out or (linked and os.path.realpath(path) == self._out):
            return True
        return all(os.path.lexists(f"{path}/{file}") for file in LABEL_SET)

    def files(self) -> list[str]:
        """See `Tree.files`."""
        return sorted(scan(self.url)[1])

    def walk(self) -> Iterator[str]:
        """See `Tree.walk`."""
        out = self.left_out
        return (name for name in walk_files(self.url) if out is None or not name.startswith(out))

    def below(self, folder: str) -> LocalTree:
        """See `Tree.below`."""
        return LocalTree(self.url_of(folder), self._out)

    def read(self, name: str) -> bytes:
        """See `Tree.read`."""
        path = self.url_of(name)
        try:
            return read_file(path, lambda size: check_image_bytes(size, path))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("no such file", url=path) from None
        except OSError as error:  # not an ImageError: a run that skips bad images stops at a failing disk
            what = f"the file cannot be read: {error.strerror}"
            hint = "remove it" if isinstance(error, SpecialFileError) else None
            kind = PermissionDeniedError if isinstance(error, PermissionError) else StoreError
            raise kind(what, url=path, hint=hint) from error

    def url_of(self, name: str) -> str:
        """See `Tree.url_of`."""
        return f"{self.url.rstrip('/')}/{name}"

    def has(self, name: str) -> bool:
        """See `Tree.has`."""
        path = self.url_of(name)
        try:
            return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            kind = PermissionDeniedError if isinstance(error, PermissionError) else StoreError
            raise kind(f"the file cannot be looked at: {error.strerror}", url=path) from error

    def names(self, folder: str) -> frozenset[str]:
        """See `Tree.names`."""
        folders, files, _ = scan(f"{self.url.rstrip('/')}/{folder}".rstrip("/"))
        return frozenset((*folders, *files))

    def is_empty(self) -> bool:
        """See `Tree.is_empty`."""
        return not self.names("")


def walk_files(root: str) -> Iterator[str]:
    """Yield the name of every file below a local folder, relative to it, as `Tree.walk` does. Links are followed."""
    # (folder with its `/`, targets of the links that lead to it)
    pending: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    while pending:
        prefix, links = pending.pop()
        folders, files, linked = scan(f"{root}/{prefix}")
        if prefix and set(LABEL_SET).issubset(files):
            yield prefix
            continue
        for name in files:
            yield prefix + name
        for name in folders:
            if is_hidden(name):
                yield f"{prefix}{name}/"
                continue
            above = links
            if name in linked:
                target = os.path.realpath(f"{root}/{prefix}{name}")
                if target in links or f"{os.path.realpath(f'{root}/{prefix}')}/".startswith(f"{target}/"):
                    raise ImageSourceError(
                        "a link leads back to a folder that contains it", url=f"{root}/{prefix}{name}"
                    )
                above = links | {target}
            pending.append((f"{prefix}{name}/", above))


def scan(folder: str) -> tuple[list[str], list[str], set[str]]:
    """List a local folder, without a stat of any file.

    Returns:
        (names of folders, names of files, names of the folders that are links).

    Raises:
        ImageSourceError: the folder cannot be listed.
    """
    folders: list[str] = []
    files: list[str] = []
    linked: set[str] = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir():
                    files.append(entry.name)
                    continue
                folders.append(entry.name)
                if entry.is_symlink():
                    linked.add(entry.name)
    except OSError as error:
        raise ImageSourceError(f"the folder cannot be listed: {error.strerror}", url=folder) from error
    return folders, files, linked


class RemoteTree:
    """A prefix in object storage. It is listed once, completely, at the first call that needs it."""

    def __init__(
        self, store: Store, prefix: str = "", names: list[str] | None = None, left_out: str | None = None
    ) -> None:
        self._store, self._prefix, self._names, self.left_out = store, prefix, names, left_out
        self.url = f"{store.url.rstrip('/')}/{prefix}"

    def _listed(self) -> list[str]:
        if self._names is None:
            self._names = [entry.name for entry in self._store.list(self._prefix)]
        return self._names

    def folders(self) -> list[str]:
        """See `Tree.folders`."""
        return sorted({name.partition("/")[0] for name in self.walk() if "/" in name[:-1]})

    def files(self) -> list[str]:
        """See `Tree.files`."""
        return sorted(name for name in self.walk() if "/" not in name)

    def walk(self) -> Iterator[str]:
        """See `Tree.walk`."""
        start = len(self._prefix)
        names = [name[start:] for name in self._listed() if name.startswith(self._prefix)]
        passed = _label_sets(names)
        yield from sorted(passed)
        inside = (*passed, self.left_out) if self.left_out else tuple(passed)
        for name in names:
            if inside and name.startswith(inside):
                continue
            hidden = _HIDDEN.search(name)
            if hidden is None:
                yield name
            elif (folder := name[: hidden.end()]) not in passed:
                passed.add(folder)
                yield folder

    def below(self, folder: str) -> RemoteTree:
        """See `Tree.below`."""
        out, start = self.left_out or "", f"{folder}/"
        inside = out.removeprefix(start) if out.startswith(start) else ""
        return RemoteTree(self._store, self._prefix + start, self._names, inside or None)

    def read(self, name: str) -> bytes:
        """See `Tree.read`."""
        return self._store.read(self._prefix + name, MAX_IMAGE_BYTES)

    def url_of(self, name: str) -> str:
        """See `Tree.url_of`."""
        return self._store.url_of(self._prefix + name)

    def has(self, name: str) -> bool:
        """See `Tree.has`."""
        return self._store.size(self._prefix + name) is not None

    def names(self, folder: str) -> frozenset[str]:
        """See `Tree.names`."""
        inside = f"{self._prefix}{folder}/" if folder else self._prefix
        return frozenset(entry.name[len(inside) :] for entry in self._store.list(inside, deep=False))

    def is_empty(self) -> bool:
        """See `Tree.is_empty`."""
        return not self._store.holds(self._prefix)


def _label_sets(names: list[str]) -> set[str]:
    """Return the folders, ending in `/`, that have both files of a label set."""
    first, second = ({n[: -len(file)] for n in names if n.endswith(f"/{file}")} for file in LABEL_SET)
    return first & second
