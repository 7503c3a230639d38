"""What lies below a folder, local or in object storage: names alone, no file is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Protocol

from slg_wds.errors import ImageSourceError, NoImagesError, NotFoundError, StoreError
from slg_wds.store import Store, open_store


class Tree(Protocol):
    """A folder of files. Names are relative to `url`, their parts separated by `/`."""

    url: str

    def folders(self) -> list[str]:
        """Names of the folders directly below, sorted."""

    def files(self) -> list[str]:
        """Names of the files directly below, sorted."""

    def walk(self) -> Iterator[str]:
        """Yield the name of every file at any depth, in no promised order."""

    def below(self, folder: str) -> Tree:
        """The tree of one of its folders."""

    def read(self, name: str) -> bytes:
        """A whole file. Raises StoreError: NotFoundError, ..."""

    def names(self, folder: str) -> frozenset[str]:
        """Names of all that lies directly in a folder below ("" for this one), listed anew.

        Raises ImageSourceError, StoreError where it cannot be listed.
        """

    def is_empty(self) -> bool:
        """Whether nothing at all lies here, by a new look."""


def open_tree(url: str, store_options: Mapping[str, str]) -> Tree:
    """The tree at a URL. Raises NoImagesError for a local one that is not there, StoreError for a remote one."""
    store = open_store(url, store_options)
    if not store.is_local:
        return RemoteTree(store)
    root = store.url
    if not os.path.isdir(root):  # noqa: PTH112
        there = os.path.lexists(root)
        raise NoImagesError(
            "a folder of images was expected, not a file" if there else "no such folder", url=url
        )
    return LocalTree(root)


class LocalTree:
    """A folder on disk. Links to folders are followed, as torchvision's ImageFolder does."""

    def __init__(self, root: str) -> None:
        self.url = root

    def folders(self) -> list[str]:
        return sorted(scan(self.url)[0])

    def files(self) -> list[str]:
        return sorted(scan(self.url)[1])

    def walk(self) -> Iterator[str]:
        return walk_files(self.url)

    def below(self, folder: str) -> LocalTree:
        return LocalTree(f"{self.url.rstrip('/')}/{folder}")

    def read(self, name: str) -> bytes:
        path = f"{self.url.rstrip('/')}/{name}"
        try:
            with open(path, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("no such file", url=path) from None
        except OSError as error:  # not an ImageError: a run that skips bad images stops at a failing disk
            raise StoreError(f"the file cannot be read: {error.strerror}", url=path) from error

    def names(self, folder: str) -> frozenset[str]:
        folders, files, _ = scan(f"{self.url.rstrip('/')}/{folder}".rstrip("/"))
        return frozenset((*folders, *files))

    def is_empty(self) -> bool:
        return not self.names("")


def walk_files(root: str) -> Iterator[str]:
    """Yield the name of every file below a local folder, relative to it, following links."""
    pending: list[tuple[str, frozenset[str]]] = [
        ("", frozenset())
    ]  # (folder with its `/`, linked folders it is in)
    while pending:
        prefix, links = pending.pop()
        folders, files, linked = scan(f"{root}/{prefix}")
        for name in files:
            yield prefix + name
        for name in folders:
            above = links
            if name in linked:
                target = os.path.realpath(f"{root}/{prefix}{name}")
                if target in links or f"{os.path.realpath(f'{root}/{prefix}')}/".startswith(f"{target}/"):
                    raise ImageSourceError(
                        "a link leads back to a folder that it lies in", url=f"{root}/{prefix}{name}"
                    )
                above = links | {target}
            pending.append((f"{prefix}{name}/", above))


def scan(folder: str) -> tuple[list[str], list[str], set[str]]:
    """(folders, files, those of the folders that are links) directly in a local folder, without a stat of any file."""
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
    """A prefix in object storage. Listed once, whole, when first asked."""

    def __init__(self, store: Store, prefix: str = "", names: list[str] | None = None) -> None:
        self._store, self._prefix, self._names = store, prefix, names
        self.url = f"{store.url.rstrip('/')}/{prefix}"

    def _listed(self) -> list[str]:
        if self._names is None:
            self._names = [entry.name for entry in self._store.list(self._prefix)]
        return self._names

    def folders(self) -> list[str]:
        start = len(self._prefix)
        return sorted({name[start:].partition("/")[0] for name in self._inside() if "/" in name[start:]})

    def files(self) -> list[str]:
        return sorted(name for name in self.walk() if "/" not in name)

    def walk(self) -> Iterator[str]:
        return (name[len(self._prefix) :] for name in self._inside())

    def _inside(self) -> Iterator[str]:
        return (name for name in self._listed() if name.startswith(self._prefix))

    def below(self, folder: str) -> RemoteTree:
        return RemoteTree(self._store, f"{self._prefix}{folder}/", self._names)

    def read(self, name: str) -> bytes:
        return self._store.read(self._prefix + name)

    def names(self, folder: str) -> frozenset[str]:
        inside = f"{self._prefix}{folder}/" if folder else self._prefix
        return frozenset(entry.name[len(inside) :] for entry in self._store.list(inside, deep=False))

    def is_empty(self) -> bool:
        return not self._store.holds(self._prefix)
