"""Bytes of the images: inside the label shards, in a folder, or in tars of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from slg_wds.errors import (
    ImageShardError,
    ImageSourceError,
    NoImagesError,
    NotFoundError,
    ReplayError,
    SlgWdsError,
    UnsupportedStoreError,
    UsageError,
)
from slg_wds.images.shard_files import find_tars
from slg_wds.images.tars import BLOCK, check_header
from slg_wds.replay.cache import TarCache
from slg_wds.replay.files import OpenFiles
from slg_wds.replay.sets import Sets
from slg_wds.replay.shards import Place, Shards
from slg_wds.store import Store, expand_braces, open_store, split_url

SPLITS = ("train", "val", "validation", "test")


class Pictures(Protocol):
    """The images of a label set, readable from any thread. never_cached: each read of one needs a network."""

    remote: bool

    @property
    def never_cached(self) -> bool: ...

    def ready(self, shard: int) -> bool:
        """Whether reading from this shard's images needs no waiting for a network, beyond that for its labels."""

    def read(self, shard: int, position: int, key: str) -> bytes:
        """The bytes of the image of a sample. Raises SlgWdsError naming it."""


class EmbeddedPictures:
    """Images inside the label shards."""

    never_cached = False  # by more than the records beside them

    def __init__(self, sets: Sets, shards: Shards) -> None:
        self._sets, self._shards, self.remote = sets, shards, False  # as remote as the records beside them

    def ready(self, shard: int) -> bool:
        return True

    def read(self, shard: int, position: int, key: str) -> bytes:
        return self._shards.read(shard, self.place(shard, position, key), key)

    def place(self, shard: int, position: int, key: str) -> Place:
        """Where the image of a sample lies in the shard."""
        images = self._sets.shard(shard).images
        if images is None:
            raise ReplayError("the shard has no images, though the set embeds them", key=key)
        place: Place = images[position].tolist()
        return place


class FolderPictures:
    """Image files at the plan's paths below a folder or prefix; nothing is listed."""

    def __init__(self, sets: Sets, store: Store, inner: str, files: OpenFiles) -> None:
        self._sets, self._store, self._inner = sets, store, inner
        self.remote = self.never_cached = not store.is_local

    def ready(self, shard: int) -> bool:
        return not self.remote

    def read(self, shard: int, position: int, key: str) -> bytes:
        path = self._sets.plan.paths[self._sets.shard(shard).numbers[position]]
        try:
            return self._store.read(self._inner + path)
        except NotFoundError as error:
            raise NotFoundError("the image is not there", url=error.url, key=key) from None
        except SlgWdsError as error:
            raise error.located(key=key) from None


class TarPictures:
    """Images where the plan says that they lie in tars, whose headers are not read through.

    cache: of remote tars, None to read each image by range.
    """

    cache: TarCache | None = None

    def __init__(self, sets: Sets, tars: Mapping[str, tuple[Store, str]], files: OpenFiles) -> None:
        self._sets, self._tars, self._files = sets, tars, files
        self.remote = not all(store.is_local for store, _ in tars.values())

    @property
    def tars(self) -> list[tuple[Store, str]]:
        """Store and name of each label shard's tar."""
        return [self._tars[name] for name in self._sets.plan.image_shards]

    @property
    def never_cached(self) -> bool:
        return self.remote and self.cache is None

    def ready(self, shard: int) -> bool:
        return not self.remote or (self.cache is not None and self.cache.path(shard) is not None)

    def read(self, shard: int, position: int, key: str) -> bytes:
        plan, number = self._sets.plan, self._sets.shard(shard).numbers[position]
        store, name = self._tars[plan.image_shards[shard]]
        offset, size = int(plan.image_offset[number]), int(plan.image_size[number])
        where = {"url": store.url_of(name), "key": key}
        if offset < BLOCK:
            raise ImageShardError(
                f"the plan places an image at byte {offset}, before any content of a tar", **where
            )
        cached = None if self.cache is None else self.cache.path(shard)
        if self.cache is not None and cached is not None:
            try:
                return _checked(self._files.read(cached, offset - BLOCK, BLOCK + size), offset, size, where)
            except (
                ImageShardError,
                NotFoundError,
            ):  # altered since it was checked, or evicted by another process
                self._files.forget(cached)
                self.cache.lost(shard)
        try:
            local = store.local_path(name)
            if local is not None:
                data = self._files.read(str(local), offset - BLOCK, BLOCK + size)
            else:
                data = store.read_range(name, offset - BLOCK, BLOCK + size)
        except SlgWdsError as error:
            raise error.located(**where) from None
        return _checked(data, offset, size, where)


def _checked(data: bytes, offset: int, size: int, where: dict[str, str]) -> bytes:
    """The image, if a tar header of its size stands before it: the tar is still the planned one."""
    if len(data) != BLOCK + size:
        raise ImageShardError("the tar of images is truncated", **where)
    try:
        stated = check_header(data[:BLOCK], offset - BLOCK)
    except ImageShardError:
        stated = -1
    if stated not in (size, 0):  # PAX states sizes of 8 GiB and more elsewhere
        raise ImageShardError(
            f"no image at byte {offset}: the tar changed after the labels were made", **where
        )
    return data[BLOCK:]


def open_pictures(
    sets: Sets,
    shards: Sequence[Shards],
    images: str | None,
    store_options: Mapping[str, str],
    files: OpenFiles,
) -> Pictures:
    """The images of a label set: embedded where `images` is None, else at that URL.

    Raises UsageError where none are embedded and none are given, NoImagesError where they are not there.
    """
    if images is None:
        if sets.embedded is None:
            raise UsageError(
                "the label set has no images in it",
                url=sets.url,
                hint="pass images=, the folder or the WebDataset shards that the labels were made from",
            )
        return EmbeddedPictures(sets, shards[sets.embedded])
    if sets.plan.source == "shards":
        return TarPictures(sets, _tars(sets, images, store_options), files)
    if images.endswith(".tar"):
        raise UsageError(
            "the labels were made from a folder of images, not from tars", url=images, hint="pass that folder"
        )
    store, inner = _folder(sets, images, store_options)
    return FolderPictures(sets, store, inner, files)


def _folder(sets: Sets, images: str, store_options: Mapping[str, str]) -> tuple[Store, str]:
    """The store and the folder in it that the plan's paths are below: the split's or the given one."""
    store = open_store(images, store_options)
    first = sets.plan.paths[0] if len(sets.plan.paths) else None
    for inner in _inner_folders(sets):
        if first is None or _there(store, inner + first):
            return store, inner
    # The first image alone may be gone: a few more say whether this is the folder.
    step = max(1, len(sets.plan.paths) // 8)
    for number in range(step, len(sets.plan.paths), step):
        for inner in _inner_folders(sets):
            if _there(store, inner + sets.plan.paths[number]):
                return store, inner
    raise NoImagesError(
        f"the images of the label set are not there: no {first}",
        url=images,
        hint="pass the folder that the labels were made from",
    )


def _inner_folders(sets: Sets) -> list[str]:
    split = sets.members[0].split
    return ["", f"{split}/", *(f"{other}/" for other in SPLITS if other != split)]


def _there(store: Store, name: str) -> bool:
    return store.size(name) is not None


def _tars(sets: Sets, images: str, store_options: Mapping[str, str]) -> dict[str, tuple[Store, str]]:
    """Store and path of each tar that the plan names: by a pattern, or in a folder or the split's folder below it."""
    names = list(dict.fromkeys(sets.plan.image_shards))
    if "{" in images or images.endswith(".tar"):
        found = _among(names, expand_braces(images), store_options)
    else:
        found = _in_folder(sets, names, open_store(images, store_options))
    missing = next((name for name in names if name not in found), None)
    if missing is None and names and not _there(*found[names[0]]):
        missing = names[0]
    if missing is not None:
        raise ImageSourceError(
            f"the tar {missing} of the label set's plan is not there",
            url=images,
            hint="pass the tars that the labels were made from",
        )
    return found


def _among(
    names: Sequence[str], urls: Sequence[str], store_options: Mapping[str, str]
) -> dict[str, tuple[Store, str]]:
    """The tars of these names among those at URLs."""
    places = {f"{parent}/{path}": (parent, path) for parent, path in map(split_url, urls)}
    found = find_tars(names, places)
    parents = {places[place][0] for place in found.values()}
    stores = {parent: open_store(parent, store_options) for parent in parents}
    return {name: (stores[places[place][0]], places[place][1]) for name, place in found.items()}


def _in_folder(sets: Sets, names: Sequence[str], store: Store) -> dict[str, tuple[Store, str]]:
    """The tars of these names below a folder: where the plan has them, else wherever a listing shows them."""
    inner = next((one for one in _inner_folders(sets) if names and _there(store, one + names[0])), None)
    if inner is not None:
        return {name: (store, inner + name) for name in names}
    try:
        paths = [entry.name for entry in store.list() if entry.name.endswith(".tar")]
    except UnsupportedStoreError:  # a web server
        return {}
    return {name: (store, path) for name, path in find_tars(names, paths).items()}
