"""Open a source of images: class folders, a flat folder, or WebDataset tars."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from slg_wds.config import SourceConfig
from slg_wds.config.checks import flag
from slg_wds.console import first_few
from slg_wds.errors import NoSplitError, UsageError
from slg_wds.format.manifest.plan import Plan
from slg_wds.images.classes import read_class_map
from slg_wds.images.folder import COMPRESSED_TAR, COMPRESSED_TARS, FolderSource, is_image
from slg_wds.images.order import TargetOf
from slg_wds.images.tars.files import (
    OTHER_SPLITS,
    SPLIT_FOLDERS,
    TarFile,
    choose_tars,
    compressed_tars,
    listed_tars,
    names_tars,
    tars_at,
)
from slg_wds.images.tars.source import ShardSource
from slg_wds.images.tree import Tree, open_tree
from slg_wds.store import Location

_DEFAULTS = SourceConfig()


class ImageSource(Protocol):
    """A source of images that can be planned and read."""

    @property
    def url(self) -> str:
        """Where the images are."""

    @property
    def kind(self) -> str:
        """`folder` or `shards`."""

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes in the order of their numbers; None if there are none."""

    @property
    def ignored(self) -> Mapping[str, int]:
        """Number of files and folders that are there and not used, by kind."""

    @property
    def gone(self) -> Sequence[str]:
        """Paths of planned images that are no longer there."""

    def plan(self, seed: int, samples_per_shard: int, *, target_of: TargetOf | None = None) -> Plan:
        """Return which image is which sample of which shard."""

    def reader(self, plan: Plan, shard: int) -> Callable[[int], bytes]:
        """Return a function that reads the images of one shard by their number in the plan; any thread may call it."""


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
        url: where the images are.
        options: which images to use and how to name them. `split` is a sub-folder; for tars, the split that their names
            or `_info.json` give.
        default_split: the split to use if `options` names none and there is such a sub-folder.
        need_targets: whether to refuse images without targets.
        on_error: `skip` plans tars' samples without an image, to leave them out later; `fail` refuses them.
        left_out: URL that labels are written to. If it is below `url`, its files are neither a class nor images.
        planned: paths of the images of an earlier run. Those that are gone are planned again.

    Raises:
        NoImagesError, NoTargetsError: images or the needed targets are missing; NoSplitError: the split is.
        UsageError: options that exclude each other, or a class map that cannot be read.
        ImageSourceError, StoreError: a folder or bucket that cannot be listed.
    """
    if options.class_map is not None:
        read_class_map(options.class_map)  # a mistake in it is told before a teacher is loaded
    location = options.at(url)
    tar_source = partial(
        ShardSource, url, options=options, need_targets=need_targets, skip=on_error == "skip"
    )
    named = _named_tars(location, options.split, default_split)
    if named is not None:
        return tar_source(named)
    tree = open_tree(location, options.at(left_out) if left_out else None)
    split, tree = choose_split(tree, options.split, default_split)
    lacks_split = options.split is not None and split is None
    store = location.at(tree.url).open()
    tars, ignored = choose_tars(tree, store, options.split or default_split, required=lacks_split)
    if tars and not _has_class_folders(tree):
        return tar_source(tars, ignored=ignored)
    _refuse_compressed_tars(tree, ignored)
    if lacks_split:
        raise _no_split(tree, str(options.split))
    _refuse_options_of_tars(options, url)
    return FolderSource(
        tree,
        split=split,
        list_file=options.list_file,
        keep_extensions=options.keep_extensions,
        need_targets=need_targets,
        planned=planned,
    )


def _refuse_compressed_tars(tree: Tree, ignored: Counter[str]) -> None:
    """Raise the error of compressed tars if they are all that is there."""
    if ignored[COMPRESSED_TARS] and not ignored[OTHER_SPLITS] and not any(map(is_image, tree.walk())):
        raise compressed_tars(tree.url)


def _refuse_options_of_tars(options: SourceConfig, url: str) -> None:
    """Raise UsageError for options that have no meaning for a folder of images."""
    for name in ("prefix_keys", "image_field", "target_field"):
        if getattr(options, name):
            raise UsageError(f"{flag(name)} is for image shards, and these are image files", url=url)


def _named_tars(location: Location, split: str | None, default_split: str) -> list[TarFile] | None:
    """Return the tars that a URL names, or that `_info.json` of a web server names; None for a folder."""
    url = location.url
    if os.path.isdir(url):  # noqa: PTH112
        return None
    if COMPRESSED_TAR.search(url):
        raise compressed_tars(url)
    if names_tars(url):
        if split:
            raise UsageError("--split does not go with the names of image shards", url=url)
        return tars_at(location)
    if url.lower().startswith(("http://", "https://")):  # cannot be listed
        return listed_tars(location.open(), split, default_split)
    return None


def _has_class_folders(tree: Tree) -> bool:
    return bool(tree.folders()) and any(is_image(path) and "/" in path for path in tree.walk())


def choose_split(tree: Tree, split: str | None, default: str) -> tuple[str | None, Tree]:
    """Choose the sub-folder of a split.

    A folder with the name of the default split is that split if it has folders or tars, or if all folders beside it
    have names of splits. Otherwise it is a class, since a class may be called `train`.

    Args:
        tree: the source's files.
        split: the split that was asked for; None: the default one if there is such a split.
        default: name of the default split.

    Returns:
        (name of the sub-folder, its tree); (None, `tree`) if no sub-folder is the split.

    Raises:
        NoSplitError: there are only other splits.
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


def _no_split(tree: Tree, split: str) -> NoSplitError:
    folders = tree.folders()
    hint = f"there are: {first_few(folders)}" if folders else "it has no folders"
    return NoSplitError(f"no folder {split}", url=tree.url, hint=hint)
