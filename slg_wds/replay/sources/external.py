"""Images outside the label shards, in a folder or in tars, read by their numbers in the plan."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from slg_wds.errors import (
    ImageShardError,
    ImageSourceError,
    NoImagesError,
    NotFoundError,
    PermissionDeniedError,
    SlgWdsError,
    StoreUnavailableError,
    UnsupportedStoreError,
    UsageError,
)
from slg_wds.files import SpecialFileError
from slg_wds.images.header import check_image_bytes
from slg_wds.images.tars.files import find_tars, names_tars
from slg_wds.images.tars.reader import BLOCK, stated_size
from slg_wds.images.tree import RemoteTree, Tree, open_tree
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.sources.files import FileBytes, OpenFiles, read_once
from slg_wds.store import Location, Store, expand_braces, split_url

if TYPE_CHECKING:
    from slg_wds.replay.cache.caches import Caches
    from slg_wds.replay.cache.shard_cache import ShardCache

SPLITS = ("train", "val", "validation", "test")


class ImageFiles(Protocol):
    """The image files of a label set, readable from any thread.

    Nothing here checks that these are the files that were labelled: `LabelledImage` does.

    Attributes:
        remote: whether reads go to a network, at least until a cache has the file.
    """

    remote: bool

    @property
    def never_cached(self) -> bool:
        """Whether each read needs a network."""

    def ready(self, shard: int) -> bool:
        """Say whether the images of a label shard can be read without waiting for a network."""

    def read(self, number: int, key: str) -> FileBytes:
        """Return the file of planned image `number`. Raises a SlgWdsError that names it."""

    def url(self, number: int) -> str:
        """Return where the file of planned image `number` lies."""

    def forget(self, number: int) -> bool:
        """Drop the cached copy of planned image `number`; return whether it may have been read from one."""


class FolderImages:
    """Image files at the plan's paths below a folder or prefix, read as `generate` read them; nothing is listed."""

    def __init__(self, labels: LabelSet, tree: Tree) -> None:
        self._plan, self._tree = labels.plan, tree
        self.remote = self.never_cached = isinstance(tree, RemoteTree)

    def ready(self, shard: int) -> bool:
        """Say whether a read of this shard needs no waiting for a network."""
        return not self.remote

    def read(self, number: int, key: str) -> bytes:
        """Return the file of planned image `number`."""
        try:
            return self._tree.read(self._plan.paths[number])
        except NotFoundError as error:
            raise NotFoundError("the image is not there", url=error.url, key=key) from None
        except SlgWdsError as error:
            if isinstance(error.__cause__, SpecialFileError):
                why = f"the image is not there: {error.__cause__.strerror}"
                raise NotFoundError(why, url=error.url, key=key) from None
            raise error.located(key=key) from None

    def url(self, number: int) -> str:
        """Return where the image file lies."""
        return self._tree.url_of(self._plan.paths[number])

    def forget(self, number: int) -> bool:
        """Drop the cached copy that the image was read from; return whether there was one."""
        return False


class TarImages:
    """Images in tars. The plan says at which byte each lies, so the tars are not searched.

    Args:
        labels: the set.
        tars: store and path of each tar, by its name in the plan.
        files: local files that stay open.
        caches: hold remote tars; None to read each image by range.
    """

    def __init__(
        self,
        labels: LabelSet,
        tars: Mapping[str, tuple[Store, str]],
        files: OpenFiles,
        caches: Caches | None = None,
    ) -> None:
        self._plan, self._tars, self._files = labels.plan, tars, files
        self.remote = not all(store.is_local for store, _ in tars.values())
        self._cache: ShardCache | None = None if caches is None else caches.of_tars(labels, self.tars)

    @property
    def tars(self) -> list[tuple[Store, str]]:
        """Store and name of each label shard's tar."""
        return [self._tar(shard) for shard in range(self._plan.num_shards)]

    @property
    def never_cached(self) -> bool:
        """Whether each read needs a network."""
        return self.remote and not (self._cache is not None and self._cache.slots)

    def ready(self, shard: int) -> bool:
        """Say whether a read of this shard needs no waiting for a network."""
        return not self.remote or self._cached(shard) is not None

    def read(self, number: int, key: str) -> FileBytes:
        """Return the file of planned image `number`."""
        offset, size = self._place(number)
        shard, where = self._plan.place(number)[0], {"url": self.url(number), "key": key}
        if offset < BLOCK:
            raise ImageShardError(
                f"the plan places an image at byte {offset}, before any content of a tar", **where
            )
        check_image_bytes(size, where["url"])
        cached = self._cached(shard)
        if cached is not None:
            try:
                [data] = read_once(cached, [(offset - BLOCK, BLOCK + size)])
                return _checked(data, offset, size, where)
            except (ImageShardError, NotFoundError, PermissionDeniedError):
                # Altered, replaced at its URL, or evicted or replaced by another process.
                self.forget(number)
            except StoreUnavailableError as error:
                assert self._cache is not None
                self._cache.unreadable(shard, error)
        return _checked(self._read(shard, offset - BLOCK, BLOCK + size, where), offset, size, where)

    def url(self, number: int) -> str:
        """Return where the image file lies."""
        store, name = self._tar(self._plan.place(number)[0])
        return store.url_of(name)

    def forget(self, number: int) -> bool:
        """Drop the cached copy of the image's tar; return whether the image may have been read from one.

        That is so also where there is none any more: another thread may have dropped it since this one read it.
        """
        shard = self._plan.place(number)[0]
        if self._cache is None:
            return False
        if self._cached(shard) is not None:
            self._cache.lost(shard)
        return True

    def _read(self, shard: int, offset: int, size: int, where: Mapping[str, str]) -> FileBytes:
        store, name = self._tar(shard)
        local = store.local_path(name)
        try:
            if local is not None:
                return self._files.read(str(local), offset, size)
            return store.read_range(name, offset, size)
        except SlgWdsError as error:
            raise error.located(**where) from None

    def _tar(self, shard: int) -> tuple[Store, str]:
        assert self._plan.image_shards is not None
        return self._tars[self._plan.image_shards[shard]]

    def _cached(self, shard: int) -> str | None:
        return None if self._cache is None else self._cache.path(shard)

    def _place(self, number: int) -> tuple[int, int]:
        plan = self._plan
        assert plan.image_offset is not None and plan.image_size is not None
        return int(plan.image_offset[number]), int(plan.image_size[number])


def _checked(data: FileBytes, offset: int, size: int, where: dict[str, str]) -> FileBytes:
    """Return the image after its tar header. Raises ImageShardError if the tar is not the planned one any more."""
    if len(data) != BLOCK + size:
        raise ImageShardError("the tar of images is truncated", **where)
    if stated_size(bytes(data[:BLOCK]), offset - BLOCK) not in (size, 0):
        raise ImageShardError(
            f"no image at byte {offset}: the tar changed after the labels were made", **where
        )
    return data[BLOCK:]


def open_external(
    labels: LabelSet, images: Location, files: OpenFiles, caches: Caches | None = None
) -> ImageFiles:
    """Open the images of a label set: the folder or the tars that it was made from.

    Raises:
        UsageError: the location is another kind of source.
        NoImagesError, ImageSourceError: the images are not there.
    """
    if labels.plan.source == "shards":
        return TarImages(labels, _tars(labels, images), files, caches)
    if images.url.endswith(".tar"):
        raise UsageError(
            "the labels were made from a folder of images, not from tars",
            url=images.url,
            hint="pass that folder",
        )
    return FolderImages(labels, _folder(labels, images))


def _folder(labels: LabelSet, images: Location) -> Tree:
    """Return the folder that holds the plan's paths: the given one, or its folder of the split."""
    root, paths = open_tree(images), labels.plan.paths
    if not len(paths):
        return root
    inner = ["", *_splits(labels)]
    # The first image alone may be gone: a few more say whether this is the folder.
    for number in range(0, len(paths), max(1, len(paths) // 8)):
        for split in inner:
            tree = root.below(split) if split else root
            if tree.has(paths[number]):
                return tree
    _refuse_nothing(images)
    raise NoImagesError(
        f"the images of the label set are not there: no {paths[0]}",
        url=images.url,
        hint="pass the folder that the labels were made from",
    )


def _splits(labels: LabelSet) -> list[str]:
    """Folders below the given one that may hold the images: that of the label set's split first."""
    return [labels.split, *(other for other in SPLITS if other != labels.split)]


def _refuse_nothing(images: Location) -> None:
    """Raise NoImagesError where nothing at all is there; NotFoundError where there is no such bucket."""
    places = (
        {split_url(url)[0] for url in expand_braces(images.url)} if names_tars(images.url) else {images.url}
    )
    for place in sorted(places):
        with contextlib.suppress(UnsupportedStoreError):  # a web server, which lists nothing
            if not images.at(place).open().holds():
                raise NoImagesError(
                    "no such folder, or nothing in it",
                    url=place,
                    hint="check the path: pass the images that the labels were made from",
                )


def _there(store: Store, name: str) -> bool:
    return store.size(name) is not None


def _tars(labels: LabelSet, images: Location) -> dict[str, tuple[Store, str]]:
    """Return store and path of each tar that the plan names: of a pattern, or below a folder."""
    names = list(dict.fromkeys(labels.plan.image_shards or ()))
    if names_tars(images.url):
        found = _among(names, images)
    else:
        found = _in_folder(labels, names, images.open())
    missing = next((name for name in names if name not in found), None)
    if missing is None and names and not _there(*found[names[0]]):
        missing = names[0]
    if missing is not None:
        _refuse_nothing(images)
        raise ImageSourceError(
            f"the tar {missing} of the label set's plan is not there",
            url=images.url,
            hint="pass the tars that the labels were made from",
        )
    return found


def _among(names: Sequence[str], images: Location) -> dict[str, tuple[Store, str]]:
    """Return the tars of these names among those of a brace pattern."""
    places = {
        f"{parent}/{path}": (parent, path) for parent, path in map(split_url, expand_braces(images.url))
    }
    found = find_tars(names, places)
    parents = {places[place][0] for place in found.values()}
    stores = {parent: images.at(parent).open() for parent in parents}
    return {name: (stores[places[place][0]], places[place][1]) for name, place in found.items()}


def _in_folder(labels: LabelSet, names: Sequence[str], store: Store) -> dict[str, tuple[Store, str]]:
    """Return the tars of these names below a folder: where the plan has them, else where a listing finds them."""
    folders = ["", *(f"{split}/" for split in _splits(labels))]
    inner = next((one for one in folders if names and _there(store, one + names[0])), None)
    if inner is not None:
        return {name: (store, inner + name) for name in names}
    try:
        paths = [entry.name for entry in store.list() if entry.name.endswith(".tar")]
    except UnsupportedStoreError:  # a web server
        return {}
    return {name: (store, path) for name, path in find_tars(names, paths).items()}
