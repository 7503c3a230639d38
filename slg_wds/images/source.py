"""Open images wherever they are: class folders, a flat folder, or WebDataset shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from slg_wds.config import SourceConfig
from slg_wds.errors import NoImagesError, UsageError
from slg_wds.format.manifest.manifest import Plan
from slg_wds.images.folder import FolderSource, is_image
from slg_wds.images.order import Targets
from slg_wds.images.tars.files import (
    COMPRESSED,
    SPLIT_FOLDERS,
    SQUEEZED,
    TarFile,
    choose_tars,
    compressed_tars,
    listed_tars,
    tars_at,
)
from slg_wds.images.tars.source import ShardSource
from slg_wds.images.tree import Tree, open_tree

_DEFAULTS = SourceConfig()
_NOTHING: Mapping[str, int] = {}


class ImageSource(Protocol):
    """Images that can be planned and read.

    Attributes:
        url: where they lie.
        kind: "folder" or "shards".
        classes: names of the class folders in the order of their numbers, None where there are none.
        ignored: what lies there and is not used -> count.
        gone: paths of images that were planned and are not there any more.
    """

    @property
    def url(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def classes(self) -> list[str] | None: ...
    @property
    def ignored(self) -> Mapping[str, int]: ...
    @property
    def gone(self) -> Sequence[str]: ...

    def plan(self, seed: int, samples_per_shard: int, *, target_of: Targets | None = None) -> Plan:
        """Which image is which sample of which shard."""

    def reader(self, plan: Plan, shard: int) -> Callable[[int], bytes]:
        """What reads the images of one shard by their number in the plan, from any thread."""


def open_source(
    url: str,
    options: SourceConfig = _DEFAULTS,
    *,
    default_split: str = "train",
    need_targets: bool = False,
    on_error: str = "fail",
    left_out: str | None = None,
    planned: Sequence[str] = (),
) -> FolderSource | ShardSource:
    """Open the images at a URL: a folder, a .tar, a brace pattern of .tar files, or a folder of .tar files.

    Args:
        options: which images to use and how to name them. Its `split` is the sub-folder, or for a folder of tars the
            split in their names or in `_info.json`.
        default_split: the split to use where `options` names none and there is such a sub-folder.
        need_targets: refuse images without targets.
        on_error: `skip` plans samples of shards that have no image, to be left out; `fail` refuses them.
        left_out: where labels are being written; if that is below, it is neither a class nor images.
        planned: paths of the images of a run that is to go on: those that are gone since are planned all the same.

    Raises:
        NoImagesError: missing, empty, or without any image. NoTargetsError: needed and missing.
        UsageError: options that do not go together. ImageSourceError, StoreError: what cannot be listed.
    """

    def shards(tars: list[TarFile], ignored: Mapping[str, int] = _NOTHING) -> ShardSource:
        return ShardSource(
            url, tars, options, need_targets=need_targets, skip=on_error == "skip", ignored=ignored
        )

    split, location = options.split, options.at(url)
    if COMPRESSED.search(url) and not os.path.isdir(url):  # noqa: PTH112
        raise compressed_tars(url)

    if ("{" in url or url.endswith(".tar")) and not os.path.isdir(url):  # noqa: PTH112
        if split:
            raise UsageError("--split does not go with the names of image shards", url=url)
        return shards(tars_at(location))
    if url.lower().startswith(("http://", "https://")):  # cannot be listed
        return shards(listed_tars(location.open(), split, default_split))
    tree = open_tree(location, options.at(left_out) if left_out else None)
    inner, tree = choose_split(tree, split, default_split)
    store = location.at(tree.url).open()
    tars, ignored = choose_tars(tree, store, split or default_split, split is not None and inner is None)
    if tars and not (tree.folders() and any(is_image(path) and "/" in path for path in tree.walk())):
        return shards(tars, ignored)
    if ignored[SQUEEZED] and not any(map(is_image, tree.walk())):
        raise compressed_tars(tree.url)
    if split is not None and inner is None:
        raise _no_split(tree, split)
    return FolderSource(
        tree,
        split=inner,
        list_file=options.list_file,
        keep_extensions=options.keep_extensions,
        need_targets=need_targets,
        planned=planned,
    )


def choose_split(tree: Tree, split: str | None, default: str) -> tuple[str | None, Tree]:
    """(the sub-folder to use or None, its tree or `tree` itself).

    A folder named as the default split counts as one if it has folders or tars of its own or stands among splits
    alone; else it is a class (a class may be called `train`). Raises NoImagesError where there are only other splits.
    """
    folders = tree.folders()
    if split is not None:
        return (split, tree.below(split)) if split in folders else (None, tree)
    only_splits = bool(folders) and SPLIT_FOLDERS.issuperset(folders)
    if default in folders:
        inner = tree.below(default)
        if only_splits or inner.folders() or any(name.endswith(".tar") for name in inner.files()):
            return default, inner
    elif only_splits and any(path.count("/") > 1 for path in tree.walk()):
        raise _no_split(tree, default)
    return None, tree


def _no_split(tree: Tree, split: str) -> NoImagesError:
    folders = tree.folders()
    there = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
    return NoImagesError(
        f"no folder {split}", url=tree.url, hint=f"there are: {there}" if folders else "it has no folders"
    )
