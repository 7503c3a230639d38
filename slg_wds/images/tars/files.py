"""Which tars a source has, and what they are called in plans and label shards."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from slg_wds.console import first_few
from slg_wds.errors import ImageSourceError, NoSplitError, NotFoundError
from slg_wds.format.manifest.info import MAX_INFO_BYTES
from slg_wds.format.manifest.plan import are_shard_names
from slg_wds.format.manifest.plan_codec import MAX_SHARDS
from slg_wds.images.folder import COMPRESSED_TAR, COMPRESSED_TARS, is_image
from slg_wds.images.folder import HIDDEN as HIDDEN_FOLDERS
from slg_wds.images.tree import Tree, is_hidden
from slg_wds.store import Location, Store, expand_braces, split_url

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test",)}
SPLIT_FOLDERS = frozenset(name for names in SPLITS.values() for name in names)
INFO = "_info.json"
OTHER_SPLITS, SUB_FOLDERS = "tars of other splits", "tars in sub-folders"
HIDDEN = "hidden tars"


@dataclass(frozen=True)
class TarFile:
    """A tar of images.

    Attributes:
        name: the tar's name in the plan: see `tar_names`.
        store: the store that has the tar.
        path: the tar's name in that store.
    """

    name: str
    store: Store
    path: str

    @property
    def stem(self) -> str:
        """The name without its extension."""
        return self.name.removesuffix(".tar")

    @property
    def base(self) -> str:
        """The file name without its extension."""
        return self.stem.rpartition("/")[2]

    @property
    def url(self) -> str:
        """The URL, as errors name it."""
        return self.store.url_of(self.path)


def names_tars(url: str) -> bool:
    """Return whether a URL names tars, one or those of a brace pattern, and no folder."""
    return "{" in url or url.endswith(".tar")


def tars_at(location: Location) -> list[TarFile]:
    """Return the tars of a URL or brace pattern, in the pattern's order.

    Raises:
        UsageError: braces that are not a valid pattern, or a URL that no store takes.
    """
    stores: dict[str, Store] = {}
    places = [split_url(one) for one in expand_braces(location.url)]
    for parent, _ in places:
        if parent not in stores:
            stores[parent] = location.at(parent).open()
    names = tar_names([f"{parent}/{path}" for parent, path in places])
    return [TarFile(name, stores[parent], path) for name, (parent, path) in zip(names, places, strict=True)]


def tar_names(paths: Sequence[str]) -> list[str]:
    """Return the names of tars in a plan: their base names; if two are the same, their paths below a common folder."""
    parts = [path.split("/") for path in paths]
    bases = [one[-1] for one in parts]
    if len(set(bases)) == len(bases) or not parts:
        return bases
    first, last = min(parts), max(parts)
    shared = 0
    while shared < min(len(first), len(last)) - 1 and first[shared] == last[shared]:
        shared += 1
    return ["/".join(one[shared:]) for one in parts]


def label_shard_names(tars: Sequence[TarFile], url: str) -> list[str]:
    """Return the names of the label shards of these tars: the tars' names without extension, with `-` for each `/`.

    Raises:
        ImageSourceError: a name that no label shard can have, or two that are the same.
    """
    first: dict[str, str] = {}
    for tar in tars:
        name = tar.stem.replace("/", "-")
        if not are_shard_names([name]):
            raise ImageSourceError(
                f"a label shard cannot be named as the tar {tar.name!r}",
                url=url,
                hint="rename it: at most 200 printable characters, no backslash or brace, no dot first",
            )
        if name in first:
            raise ImageSourceError(
                f"the label shards of {first[name]} and {tar.name} would both be named {name}",
                url=url,
                hint="rename one of them",
            )
        first[name] = tar.name
    return list(first)


def find_tars(names: Iterable[str], paths: Iterable[str]) -> dict[str, str]:
    """Find tars by their names in a plan: at the path that is the name, or at the only path that ends in it.

    Returns:
        The path of each tar that was found, by name.
    """
    by_base: dict[str, list[str]] = {}
    for path in paths:
        by_base.setdefault(path.rpartition("/")[2], []).append(path)
    found: dict[str, str] = {}
    for name in names:
        alike = [p for p in by_base.get(name.rpartition("/")[2], ()) if f"/{p}".endswith(f"/{name}")]
        if name in alike or len(alike) == 1:
            found[name] = name if name in alike else alike[0]
    return found


def choose_tars(tree: Tree, store: Store, split: str, required: bool) -> tuple[list[TarFile], Counter[str]]:
    """Choose the tars of a split in a folder.

    If `_info.json` is there, it lists them. Else they are the tars directly in the folder; without any, those of its
    sub-folders, if these have no images. Tars whose path names another split are not used.

    Args:
        tree: the folder's files.
        store: the store at the folder.
        split: name of the split.
        required: whether only tars whose path names the split are used.

    Returns:
        (the tars; number of files and folders that are not used, by kind).

    Raises:
        NoSplitError, ImageSourceError: as `parse_info`.
        StoreError: `_info.json` cannot be read.
    """
    files = tree.files()
    if INFO in files:
        found = parse_info(store.read(INFO, MAX_INFO_BYTES), split, required, tree.url)
        if found is not None:
            others = sum(name.endswith(".tar") for name in files if name not in found)
            return tars_in(store, found), +Counter({OTHER_SPLITS: others})
    direct, ignored = _usable(files)
    nested, more = _usable(_tars_below(tree)) if tree.folders() else ([], Counter())
    if direct:
        tars, ignored = direct, ignored + Counter({SUB_FOLDERS: len(nested)})
    else:
        tars, ignored = nested, ignored + more
    ours = _of_split(tars, split, required)
    ignored[OTHER_SPLITS] = len(tars) - len(ours)
    return [TarFile(path, store, path) for path in ours], +ignored


def compressed_tars(url: str) -> ImageSourceError:
    """Return the error for tars that must be decompressed first."""
    return ImageSourceError(
        "the tars are compressed",
        url=url,
        hint="decompress them (gunzip): images are read from tars by range",
    )


def _usable(paths: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """Return (paths of usable tars; number of others by kind). A path that ends in `/` is that of a hidden folder."""
    tars: list[str] = []
    ignored: Counter[str] = Counter()
    for path in paths:
        if path.endswith("/"):
            ignored[HIDDEN_FOLDERS] += 1
            continue
        if not path.endswith(".tar") and not COMPRESSED_TAR.search(path):
            continue
        if any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
            ignored[HIDDEN] += 1
        elif path.endswith(".tar"):
            tars.append(path)
        else:
            ignored[COMPRESSED_TARS] += 1
    return tars, ignored


def _tars_below(tree: Tree) -> list[str]:
    """Return the sorted paths of tars in sub-folders and of hidden folders; none at all if there are images."""
    found: list[str] = []
    for path in tree.walk():
        if is_image(path):
            return []
        if path.endswith("/"):
            found += [path] if is_hidden(path.rstrip("/").rpartition("/")[2]) else []
        elif "/" in path and (path.endswith(".tar") or COMPRESSED_TAR.search(path)):
            found.append(path)
    return sorted(found)


def _of_split(tars: list[str], split: str, required: bool) -> list[str]:
    """Return the tars whose path names the split; unless that is required, also those that name none."""
    named = {path: _splits_named(path, split) for path in tars}
    ours = [path for path in tars if split in named[path]]
    if required:
        return ours
    return [path for path in tars if split in named[path] or not named[path]] if ours else tars


def _splits_named(path: str, split: str) -> set[str]:
    """Return the splits that a tar's base name contains; if it contains none, those that its folders contain."""
    folder, _, base = path.lower().removesuffix(".tar").rpartition("/")
    for text in (base, folder):
        words = set(re.split(r"[^a-z]+", text))
        named = {one for one in {*SPLITS, split} if words.intersection(SPLITS.get(one, (one.lower(),)))}
        if named:
            return named
    return set()


def tars_in(store: Store, paths: Sequence[str]) -> list[TarFile]:
    """Return the tars at these paths of a store."""
    return [TarFile(name, store, path) for name, path in zip(tar_names(paths), paths, strict=True)]


def listed_tars(store: Store, split: str | None, default: str) -> list[TarFile]:
    """Return the tars that `_info.json` lists, in a store that cannot be listed.

    Args:
        store: has `_info.json`, or has it in the split's folder.
        split: the split that was asked for; None: the default one, else the only one.
        default: name of the default split.

    Raises:
        NoSplitError: there is no `_info.json`, or it does not have the split.
    """
    for folder in (f"{split or default}/", ""):
        try:
            data = store.read(folder + INFO, MAX_INFO_BYTES)
        except NotFoundError:
            continue
        names = parse_info(data, split or default, split is not None and not folder, store.url)
        if names:
            return tars_in(store, [folder + name for name in names])
    raise NoSplitError(
        f"a web server cannot be listed, and no {INFO} names its shards",
        url=store.url,
        hint="give a brace pattern of .tar files",
    )


def parse_info(data: bytes, split: str, required: bool, url: str) -> list[str] | None:
    """Return the file names of a split in `_info.json`, which has the form of timm's WebDataset reader.

    Args:
        data: the file.
        split: name of the split, or another name for it, such as `validation` for `val`.
        required: whether the file must have this split. If not, and it has one split, that is used whatever its name.
        url: of the source, for messages.

    Returns:
        The file names, with patterns expanded; None if the file lists no shards.

    Raises:
        NoSplitError, ImageSourceError: the split is not there; the file has another form or lists too many shards.
    """
    try:
        splits: Any = json.loads(data).get("splits")
        names = {name: entry["filenames"] for name, entry in splits.items()} if splits else {}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise ImageSourceError(f"{INFO} does not have the form of a list of shards", url=url) from None
    if not names:
        return None
    alike = next((name for name in (split, *SPLITS.get(split, ())) if name in names), None)
    if alike is None and len(names) == 1 and not required:
        alike = next(iter(names))
    if alike is None:
        raise NoSplitError(f"no split {split}", url=url, hint=f"{INFO} has: {first_few(list(names))}")
    patterns = [names[alike]] if isinstance(names[alike], str) else names[alike]
    if not isinstance(patterns, list) or not all(isinstance(name, str) for name in patterns):
        raise ImageSourceError(f"{INFO} does not have the form of a list of shards", url=url)
    found: list[str] = []
    for pattern in patterns:
        found += expand_braces(pattern)
        if len(found) > MAX_SHARDS:
            raise ImageSourceError(f"{INFO} names over {MAX_SHARDS} shards", url=url)
    return found
