"""Which tars make up a source of image shards."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from slg_wds.errors import ImageSourceError, NoImagesError, NotFoundError
from slg_wds.format.manifest.manifest import MAX_INFO_BYTES
from slg_wds.format.manifest.plan import are_shard_names
from slg_wds.format.manifest.plan_codec import MAX_SHARDS
from slg_wds.images.folder import HIDDEN as HIDDEN_FOLDERS
from slg_wds.images.folder import is_image
from slg_wds.images.tree import Tree, is_hidden
from slg_wds.store import Location, Store, expand_braces, split_url

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test",)}
SPLIT_FOLDERS = frozenset(name for names in SPLITS.values() for name in names)
INFO = "_info.json"
COMPRESSED = re.compile(r"\.(tgz|tbz2?|txz|tzst|tar\.(gz|bz2|xz|zst|lz4|z))$", re.IGNORECASE)
OTHER_SPLITS, SUB_FOLDERS = "tars of other splits", "tars in sub-folders"
SQUEEZED, HIDDEN = "compressed tars", "hidden tars"


@dataclass(frozen=True)
class TarFile:
    """A shard of images: its name in the plan (see `tar_names`), and where it lies."""

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
        """The whole URL, as errors name it."""
        return self.store.url_of(self.path)


def tars_at(location: Location) -> list[TarFile]:
    """Return the tars of a URL or brace pattern, in the pattern's order.

    Raises:
        UsageError: braces that make no pattern.
    """
    stores: dict[str, Store] = {}
    places = [split_url(one) for one in expand_braces(location.url)]
    for parent, _ in places:
        if parent not in stores:
            stores[parent] = location.at(parent).open()
    names = tar_names([f"{parent}/{path}" for parent, path in places])
    return [TarFile(name, stores[parent], path) for name, (parent, path) in zip(names, places, strict=True)]


def tar_names(paths: Sequence[str]) -> list[str]:
    """What a plan calls the tars at these paths: their base names, or where two have the same, the paths below the
    folder that all of them lie in."""
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
    """The names of the label shards of these tars: the tars' own without extension, with `-` for each `/`.

    Raises ImageSourceError for a name that no label shard can have, and for two that are the same.
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
    """Plan's name -> path of each tar that is among the paths: the very name, or the only path that ends in it."""
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
    """(the tars of a split in a folder, what is left out of them -> count).

    Tars directly in the folder are taken; else those of its sub-folders, where there are no images. `_info.json`
    decides where there is one; else tars whose path says another split are left out. Where the split is `required`,
    their paths must say it. `store` is at the folder.
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
    """The error for tars that only decompressing makes readable."""
    return ImageSourceError(
        "the tars are compressed",
        url=url,
        hint="decompress them (gunzip): images are read from tars by range",
    )


def _usable(paths: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """(paths of tars, what cannot be used -> count). A path that ends in `/` is a hidden folder's."""
    tars: list[str] = []
    ignored: Counter[str] = Counter()
    for path in paths:
        if path.endswith("/"):
            ignored[HIDDEN_FOLDERS] += 1
            continue
        if not path.endswith(".tar") and not COMPRESSED.search(path):
            continue
        if any(part.startswith(".") or part == "__MACOSX" for part in path.split("/")):
            ignored[HIDDEN] += 1
        elif path.endswith(".tar"):
            tars.append(path)
        else:
            ignored[SQUEEZED] += 1
    return tars, ignored


def _tars_below(tree: Tree) -> list[str]:
    """Paths of tars in sub-folders, and of hidden folders, sorted; none where there are images or label sets alone."""
    found: list[str] = []
    for path in tree.walk():
        if is_image(path):
            return []
        if path.endswith("/"):
            found += [path] if is_hidden(path.rstrip("/").rpartition("/")[2]) else []
        elif "/" in path and (path.endswith(".tar") or COMPRESSED.search(path)):
            found.append(path)
    return sorted(found)


def _of_split(tars: list[str], split: str, required: bool) -> list[str]:
    """The tars whose path says the split; unless that is required, also those that say none."""
    said = {path: _splits_said(path, split) for path in tars}
    ours = [path for path in tars if split in said[path]]
    if required:
        return ours
    return [path for path in tars if split in said[path] or not said[path]] if ours else tars


def _splits_said(path: str, split: str) -> set[str]:
    """The splits that a tar's base name says, or where it says none, its folders."""
    folder, _, base = path.lower().removesuffix(".tar").rpartition("/")
    for text in (base, folder):
        words = set(re.split(r"[^a-z]+", text))
        said = {one for one in {*SPLITS, split} if words.intersection(SPLITS.get(one, (one.lower(),)))}
        if said:
            return said
    return set()


def tars_in(store: Store, paths: Sequence[str]) -> list[TarFile]:
    """The tars that `_info.json` names, by their paths below a store."""
    return [TarFile(name, store, path) for name, path in zip(tar_names(paths), paths, strict=True)]


def listed_tars(store: Store, split: str | None, default: str) -> list[TarFile]:
    """The tars that `_info.json` of a store names, for one that cannot be listed.

    Raises NoImagesError where there is none, or none with the split.
    """
    for folder in (f"{split or default}/", ""):
        try:
            data = store.read(folder + INFO, MAX_INFO_BYTES)
        except NotFoundError:
            continue
        names = parse_info(data, split or default, split is not None and not folder, store.url)
        if names:
            return tars_in(store, [folder + name for name in names])
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
    found: list[str] = []
    for pattern in patterns:
        found += expand_braces(pattern)
        if len(found) > MAX_SHARDS:
            raise ImageSourceError(f"{INFO} names over {MAX_SHARDS} shards", url=url)
    return found
