"""Which tars make up a source of image shards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slg_wds.errors import ImageSourceError, NoImagesError, NotFoundError
from slg_wds.images.tree import Tree
from slg_wds.store import Store, expand_braces, open_store, split_url

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test",)}
SPLIT_FOLDERS = frozenset(name for names in SPLITS.values() for name in names)
INFO = "_info.json"
INFO_BYTES = 1 << 26


@dataclass(frozen=True)
class TarFile:
    """A shard of images: its file name, and where it lies."""

    name: str
    store: Store
    path: str

    @classmethod
    def of(cls, store: Store, path: str) -> TarFile:
        """The tar at a path below a store."""
        return cls(path.rpartition("/")[2], store, path)

    @property
    def url(self) -> str:
        """The whole URL, as errors name it."""
        return self.store.url_of(self.path)


def tars_at(url: str, options: Mapping[str, str]) -> list[TarFile]:
    """The tars of a URL or brace pattern, in the pattern's order. Raises UsageError for a pattern that is none."""
    stores: dict[str, Store] = {}
    tars = []
    for one in expand_braces(url):
        parent, name = split_url(one)
        if parent not in stores:
            stores[parent] = open_store(parent, options)
        tars.append(TarFile(name, stores[parent], name))
    return tars


def choose_tars(tree: Tree, split: str, required: bool) -> tuple[list[str], int]:
    """(names of the tars of a split directly in a folder, how many belong to other splits).

    `_info.json` decides where there is one; else tars whose name says another split are left out. Where the split is
    `required`, their names must say it.
    """
    files = tree.files()
    if INFO in files:
        found = parse_info(tree.read(INFO), split, required, tree.url)
        if found is not None:
            return found, sum(name.endswith(".tar") for name in files if name not in found)
    tars = [name for name in files if name.endswith(".tar")]
    ours = [name for name in tars if _says(name, split)]
    if not ours and not required:
        return tars, 0
    others = [name for name in tars if name not in ours and any(_says(name, other) for other in SPLITS)]
    if not required:  # a name that says no split at all is one of ours
        ours = [name for name in tars if name not in others]
    return ours, len(tars) - len(ours)


def _says(name: str, split: str) -> bool:
    words = re.split(r"[^a-z]+", name.lower().removesuffix(".tar"))
    return any(word in words for word in SPLITS.get(split, (split.lower(),)))


def listed_tars(store: Store, split: str | None, default: str) -> list[TarFile]:
    """The tars that `_info.json` of a store names, for one that cannot be listed.

    Raises NoImagesError where there is none, or none with the split.
    """
    for folder in (f"{split or default}/", ""):
        try:
            data = store.read(folder + INFO, INFO_BYTES)
        except NotFoundError:
            continue
        names = parse_info(data, split or default, split is not None and not folder, store.url)
        if names:
            return [TarFile.of(store, folder + name) for name in names]
    raise NoImagesError(
        f"a web server cannot be listed, and no {INFO} names its shards",
        url=store.url,
        hint="give a brace pattern of .tar files",
    )


def parse_info(data: bytes, split: str, required: bool, url: str) -> list[str] | None:
    """File names of a split in `_info.json` as timm's reader takes it, None where it says nothing of shards.

    A sole split is taken whatever its name unless `required`. Raises NoImagesError where the split is not there.
    """
    try:
        splits: Any = json.loads(data).get("splits")
        names = {name: entry["filenames"] for name, entry in splits.items()} if splits else {}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise ImageSourceError(f"{INFO} is not what it should be", url=url) from None
    if not names:
        return None
    alike = next((name for name in (split, *SPLITS.get(split, ())) if name in names), None)
    if alike is None and len(names) == 1 and not required:
        alike = next(iter(names))
    if alike is None:
        raise NoImagesError(f"no split {split}", url=url, hint=f"{INFO} has: {', '.join(names)}")
    patterns = [names[alike]] if isinstance(names[alike], str) else names[alike]
    if not isinstance(patterns, list) or not all(isinstance(name, str) for name in patterns):
        raise ImageSourceError(f"{INFO} is not what it should be", url=url)
    return [name for pattern in patterns for name in expand_braces(pattern)]
