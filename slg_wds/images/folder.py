"""A folder of images: class folders, as torchvision's ImageFolder reads them, or a flat folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from slg_wds.console import first_few
from slg_wds.errors import ImageGoneError, ImageSourceError, NoImagesError, NoTargetsError, NotFoundError
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.images.gone import GoneFiles
from slg_wds.images.lists import select_listed
from slg_wds.images.order import TargetOf, keys_of, map_targets, shard_names, shuffled, split_evenly
from slg_wds.images.tree import APPLE_DOUBLE, Tree, is_hidden

# torchvision's ImageFolder has all of these but .jfif, a JPEG file by another name.
IMG_EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
COMPRESSED_TAR = re.compile(r"\.(tgz|tbz2?|txz|tzst|tar\.(gz|bz2|xz|zst|lz4|z))$", re.IGNORECASE)
COMPRESSED_TARS = "compressed tars"
OUTSIDE, HIDDEN, LABEL_SETS = "outside class folders", "hidden folders", "label sets"

_KIND_NAMES = {"": "without extension", COMPRESSED_TARS: "compressed tars, to be decompressed first"}


class FolderSource:
    """Images in a folder. Classes are numbered by sorted name, as ImageFolder numbers them.

    Attributes:
        url: the folder that paths are relative to: the split's folder if there is one.
        classes: names of the class folders, empty ones included; None for a flat folder.
        ignored: number of files and folders that are not used, by kind. For files that are not images the kind is their
            extension in lower case ("" for none). The others are `outside class folders` (images beside the folders),
            `hidden folders`, `label sets`, `AppleDouble files` (of macOS) and `compressed tars`.
        gone: the paths of `planned` that are no longer there. They are planned again, so that a label set that was
            begun with them can be continued. Reading them raises ImageGoneError.
    """

    kind = "folder"

    def __init__(
        self,
        tree: Tree,
        *,
        split: str | None = None,
        list_file: str | None = None,
        keep_extensions: bool = False,
        need_targets: bool = False,
        planned: Sequence[str] = (),
    ) -> None:
        """List the folder.

        Args:
            tree: the folder's files.
            split: name of the split, which begins the names of shards; None: `train`.
            list_file: path of a file that selects images: see lists.py.
            keep_extensions: whether keys keep the paths' extensions.
            need_targets: whether to refuse a flat folder.
            planned: paths of the images that an earlier run planned.

        Raises:
            NoImagesError: there is no image.
            NoTargetsError: targets are needed, and the folder is flat.
            ImageSourceError: a name that is not UTF-8; a listed image that is not there, is ambiguous or is listed
                twice.
            UsageError: the list cannot be read or is empty.
        """
        self.url, self.split = tree.url, split
        self._tree, self._keep_extensions = tree, keep_extensions
        paths, folders, self.ignored = _list(tree)
        self.classes = folders if "/" in paths[0] else None
        if need_targets and self.classes is None:
            raise NoTargetsError("class folders are needed, and there are only images", url=tree.url)
        self.gone = _gone(planned, paths, folders, list_file is not None)
        paths = sorted((*paths, *self.gone))
        self._paths = select_listed(list_file, paths, tree.url, split) if list_file else paths

    def plan(self, seed: int, samples_per_shard: int, *, target_of: TargetOf | None = None) -> Plan:
        """Plan all images: sorted by path, then shuffled once, then split into shards.

        Args:
            seed: of the shuffle.
            samples_per_shard: images in each shard but the last.
            target_of: the target of each class number, None for no target; None: the number itself.

        Raises:
            DuplicateKeyError: two images with the same key.
            UsageError: a seed or number of samples that is invalid.
            ImageSourceError: a target that is invalid.
        """
        keys = keys_of(self._paths, self._keep_extensions, self.url)
        order = shuffled(len(keys), seed)
        places = order.tolist()
        sizes = split_evenly(len(keys), samples_per_shard)
        prefix = re.sub(r"[^\w-]+", "-", self.split or "train")
        return Plan(
            shard_names=shard_names(prefix, len(sizes)),
            shard_sizes=sizes,
            paths=StringColumn.of(map(self._paths.__getitem__, places)),
            keys=StringColumn.of(map(keys.__getitem__, places)),
            targets=map_targets(self._class_numbers(), target_of)[order],
        )

    def _class_numbers(self) -> NDArray[np.int64]:
        if self.classes is None:
            return np.full(len(self._paths), -1, np.int64)
        number = {name: i for i, name in enumerate(self.classes)}
        return np.fromiter(
            (number[path[: path.index("/")]] for path in self._paths), np.int64, len(self._paths)
        )

    def read(self, path: str) -> bytes:
        """Return the bytes of the image at a path of the plan. Raises StoreError, or NotFoundError if it is gone."""
        return self._tree.read(path)

    def reader(self, plan: Plan, shard: int) -> Callable[[int], bytes]:
        """Return a function that reads the images of one shard by their number in the plan; any thread may call it.

        The function raises ImageGoneError if an image's folder no longer has it, and StoreError or ImageSourceError if
        the image cannot be read for another reason.
        """
        gone = GoneFiles(self._tree)

        def read(number: int) -> bytes:
            path = plan.paths[number]
            try:
                return self.read(path)
            except NotFoundError as error:
                gone.confirm(path)
                raise ImageGoneError(
                    "it is gone from its folder since it was planned", url=error.url
                ) from None

        return read


def _list(tree: Tree) -> tuple[list[str], list[str], Counter[str]]:
    """Return (sorted paths of the images of class folders, or else of a flat folder; class folders; ignored things)."""
    paths, sets, ignored = find_images(tree)
    folders = tree.folders()
    nested = [path for path in paths if "/" in path]
    if sets:  # a folder that holds only label sets is no class
        only_sets = _top_folders(sets) - _top_folders(nested)
        folders = [name for name in folders if name not in only_sets]
    if nested:
        ignored[OUTSIDE] += len(paths) - len(nested)
        paths = nested
    if not paths:
        raise no_images(tree.url, +ignored, len(folders))
    _check_names([*paths, *folders], tree.url)
    return paths, folders, +ignored


def _gone(planned: Sequence[str], paths: Sequence[str], folders: Sequence[str], listed: bool) -> list[str]:
    """Return the planned images that are not among `paths`; none if `paths` are those of another data set.

    listed: whether a list selects the images. Without one, a path that was not planned means another data set.
    """
    usual = not planned or (not listed and len(planned) <= len(paths))
    if usual:  # told without sets of millions of paths
        return []
    there, before = set(paths), set(planned)
    if not (listed or there <= before):
        return []
    gone = sorted(before - there)
    if not any("/" in path for path in paths):
        return gone if not any("/" in path for path in gone) else []
    return gone if {path.partition("/")[0] for path in gone} <= set(folders) else []


def is_image(path: str) -> bool:
    """Return whether a file counts as an image, by its extension."""
    return path.lower().endswith(IMG_EXTENSIONS)


def find_images(tree: Tree) -> tuple[list[str], list[str], Counter[str]]:
    """Find images by their extensions.

    Returns:
        (paths of images, sorted; folders of label sets; number of other files and folders, by the kinds of
        `FolderSource.ignored`).
    """
    paths: list[str] = []
    sets = [tree.left_out] if tree.left_out else []
    ignored: Counter[str] = Counter()
    for path in tree.walk():
        base = path.rstrip("/").rpartition("/")[2]
        if path.endswith("/"):
            hidden = is_hidden(base)
            ignored[HIDDEN if hidden else LABEL_SETS] += 1
            sets += [] if hidden else [path]
        elif base.startswith(APPLE_DOUBLE):
            ignored["AppleDouble files"] += 1
        elif is_image(path):
            paths.append(path)
        elif COMPRESSED_TAR.search(base):
            ignored[COMPRESSED_TARS] += 1
        else:
            extension = "." + base.rpartition(".")[2].lower() if "." in base else ""
            ignored[extension.encode("utf-8", "backslashreplace").decode()] += 1
    paths.sort()
    return paths, sets, ignored


def _top_folders(paths: list[str]) -> set[str]:
    return {path[: path.index("/")] for path in paths}


def ignored_kinds(ignored: Mapping[str, int]) -> str:
    """Describe what a source does not use, the most frequent kinds first: `.txt (3), without extension (1), ...`."""
    kinds = sorted(ignored.items(), key=lambda item: -item[1])
    return first_few([f"{_KIND_NAMES.get(kind, kind)} ({count:,})" for kind, count in kinds])


def no_images(url: str, ignored: Counter[str], folders: int = 0) -> NoImagesError:
    """Return the error for a folder without images, or for tars without samples.

    Args:
        url: of the folder.
        ignored: number of files and folders that are there instead, by kind.
        folders: number of its class folders.
    """
    if not ignored:
        return NoImagesError(
            "no images: its folders are empty" if folders else "no images: it is empty", url=url
        )
    return NoImagesError(
        f"no images; all that is there: {ignored_kinds(ignored)}",
        url=url,
        hint=f"images end in {' '.join(IMG_EXTENSIONS)}",
    )


def _check_names(names: list[str], url: str) -> None:
    try:
        "\n".join(names).encode("utf-8")
    except UnicodeEncodeError as error:
        text = error.object
        start, end = text.rfind("\n", 0, error.start) + 1, text.find("\n", error.start)
        name = text[start : end if end >= 0 else None]
        raise ImageSourceError(f"the name {name!r} is not UTF-8", url=url, hint="rename it") from None
