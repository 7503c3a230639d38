"""Open images wherever they are: class folders, a flat folder, or WebDataset shards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from slg_wds.errors import ImageSourceError, NoImagesError, NotFoundError, UsageError
from slg_wds.format.manifest import Plan
from slg_wds.images.folder import FolderSource
from slg_wds.images.order import Targets
from slg_wds.images.shards import ShardSource, TarFile
from slg_wds.images.tree import Tree, open_tree
from slg_wds.store import Store, expand_braces, open_store, split_url

SPLITS = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test",)}
SPLIT_FOLDERS = frozenset(name for names in SPLITS.values() for name in names)
_NO_OPTIONS: Mapping[str, str] = {}


class ImageSource(Protocol):
    """Images that can be planned and read.

    Attributes:
        url: where they lie. kind: "folder" or "shards".
        classes: names of the class folders in the order of their numbers, None where there are none.
        ignored: what lies there and is not used -> count.
    """

    url: str
    kind: str
    classes: list[str] | None
    ignored: Mapping[str, int]

    def plan(self, seed: int, samples_per_shard: int, *, target_of: Targets | None = None) -> Plan:
        """Which image is which sample of which shard."""

    def reader(self, plan: Plan, shard: int) -> Callable[[int], bytes]:
        """What reads the images of one shard by their number in the plan, from any thread."""


def open_source(
    url: str,
    *,
    split: str | None = None,
    default_split: str = "train",
    list_file: str | None = None,
    keep_extensions: bool = False,
    store_options: Mapping[str, str] = _NO_OPTIONS,
    need_targets: bool = False,
    target_field: str | None = None,
) -> FolderSource | ShardSource:
    """Open the images at a URL: a folder, a .tar, a brace pattern of .tar files, or a folder of .tar files.

    Args:
        split: sub-folder to use. Without it, `default_split` where the folder has one.
        list_file: use only the images that this file lists (folders only).
        keep_extensions: keep file extensions in keys.
        target_field: field of .json members that holds the class number (default: the usual names).
        need_targets: refuse images without targets.

    Raises:
        NoImagesError: missing, empty, or without any image. NoTargetsError: needed and missing.
        UsageError: options that do not go together. ImageSourceError, StoreError: what cannot be listed.
    """
    shard_options: dict[str, Any] = {
        "keep_extensions": keep_extensions,
        "need_targets": need_targets,
        "target_field": target_field,
    }
    if "{" in url or url.endswith(".tar"):
        if list_file or split:
            raise UsageError("--list and --split do not go with the URLs of image shards", url=url)
        tars = [_tar(one, store_options) for one in expand_braces(url)]
        return ShardSource(url, tars, **shard_options)
    store = open_store(url, store_options)
    tree, inner = (None, split) if not store.is_local and store.url.startswith("http") else _split_tree(
        open_tree(url, store_options), split, default_split
    )
    names, others = _tar_names(store, tree, inner, split, default_split)
    if names:
        if list_file:
            raise UsageError("--list does not go with image shards", url=url)
        folder = f"{inner}/" if inner else ""
        tars = [TarFile(name.rpartition("/")[2], store, folder + name) for name in names]
        return ShardSource(url, tars, ignored={f"tars of other splits than {split or default_split}": others}
                           if others else None, **shard_options)
    if tree is None:
        raise NoImagesError("a web server lists nothing, and there is no _info.json", url=url,
                            hint="give a brace pattern of .tar files")
    return FolderSource(tree, split=inner, list_file=list_file, keep_extensions=keep_extensions,
                        need_targets=need_targets)


