"""A folder of images, of class folders or flat, as torchvision's ImageFolder sees it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import ImageGoneError, ImageSourceError, NoImagesError, NoTargetsError, NotFoundError
from slg_wds.format.manifest.manifest import Plan, StringColumn
from slg_wds.images.gone import GoneFiles
from slg_wds.images.lists import choose_listed
from slg_wds.images.order import Targets, keys_of, map_targets, shard_names, shuffled, split_evenly
from slg_wds.images.tree import APPLE_DOUBLE, Tree, is_hidden

# torchvision's ImageFolder has all of these but .jfif, a JPEG file by another name.
IMG_EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
OUTSIDE, HIDDEN, LABEL_SETS = "outside class folders", "hidden folders", "label sets"


class FolderSource:
    """Images in a folder, listed when opened. Classes are numbered by sorted name, as ImageFolder does.

    Attributes:
        url: the folder that paths are relative to, the split's.
        classes: names of the class folders, also of empty ones; None for a flat folder.
        num_images: images found (and listed, where a list is given).
        ignored: what is not used -> count: files that are not images by extension in lower case ("" for none),
            `outside class folders` (images beside those), `hidden folders`, `label sets`, `AppleDouble files`.
        gone: those of `planned` that are not there any more. They are planned again, so that a set begun with them
            goes on, and their reader tells that they are gone.

    Raises:
        NoImagesError: no image at all. NoTargetsError: `need_targets` of a flat folder.
        ImageSourceError: a name that is not UTF-8, or what the list names is not there.
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
        self.url, self.split = tree.url, split
        self._tree, self._keep_extensions = tree, keep_extensions
        paths, sets, self.ignored = find_images(tree)
        nested = [path for path in paths if "/" in path]
        folders = tree.folders()
        if sets:  # a folder that holds only those is no class either
            only_sets = _tops(sets) - _tops(nested)
            folders = [name for name in folders if name not in only_sets]
        self.classes = folders if nested else None
        if nested:
            self.ignored[OUTSIDE] += len(paths) - len(nested)
            paths = nested
        self.ignored = +self.ignored
        if not paths:
            raise no_images(tree.url, self.ignored, len(folders))
        if need_targets and self.classes is None:
            raise NoTargetsError("class folders are needed, and there are only images", url=tree.url)
        _check_names([*paths, *folders], tree.url)
        self.gone = _gone(planned, paths, folders, list_file is not None)
        paths = sorted((*paths, *self.gone))
        self._paths = choose_listed(list_file, paths, tree.url, split) if list_file else paths

    @property
    def num_images(self) -> int:
        return len(self._paths)

    def plan(self, seed: int, samples_per_shard: int, *, target_of: Targets | None = None) -> Plan:
        """All images, sorted by path, then shuffled once by the seed, in shards of so many.

        `target_of` gives the target of a class number (default: that number), None for no target.
        Raises DuplicateKeyError, UsageError, and ImageSourceError for a target that cannot be.
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
        """The bytes of the image at a path of the plan. Raises StoreError; NotFoundError where it is gone."""
        return self._tree.read(path)

    def reader(self, plan: Plan, shard: int) -> Callable[[int], bytes]:
        """What reads the images of one shard, by their number in the plan; from any thread.

        Its calls raise ImageGoneError where an image's folder no longer has it, and StoreError or ImageSourceError
        where nobody can say whether it has.
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


def _gone(planned: Sequence[str], paths: Sequence[str], folders: Sequence[str], listed: bool) -> list[str]:
    """The planned images that are not among `paths`: none where those are another data set's.

    listed: whether a list says which of the images are used. Else none may be new.
    """
    if not planned or (
        not listed and len(planned) <= len(paths)
    ):  # the usual case, without sets of millions of paths
        return []
    there, wanted = set(paths), set(planned)
    if not (listed or there <= wanted):
        return []
    gone = sorted(wanted - there)
    if not any("/" in path for path in paths):
        return gone if not any("/" in path for path in gone) else []
    return gone if {path.partition("/")[0] for path in gone} <= set(folders) else []


def is_image(path: str) -> bool:
    """Whether a file counts as an image, by its extension."""
    return path.lower().endswith(IMG_EXTENSIONS)


def find_images(tree: Tree) -> tuple[list[str], list[str], Counter[str]]:
    """(paths of images by their extensions, sorted; folders of label sets; what else there is -> count)."""
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
        else:
            extension = "." + base.rpartition(".")[2].lower() if "." in base else ""
            ignored[extension.encode("utf-8", "backslashreplace").decode()] += 1
    paths.sort()
    return paths, sets, ignored


def _tops(paths: list[str]) -> set[str]:
    return {path[: path.index("/")] for path in paths}


def ignored_kinds(ignored: Mapping[str, int]) -> str:
    """Describe what a source does not use: `.txt (3), without extension (1), label sets (1)`."""
    return ", ".join(f"{kind or 'without extension'} ({count:,})" for kind, count in ignored.items())


def no_images(url: str, ignored: Counter[str], folders: int) -> NoImagesError:
    """The error for a tree without images: empty, or with other files only."""
    if not ignored:
        return NoImagesError(
            "no images: its folders are empty" if folders else "no images: it is empty", url=url
        )
    return NoImagesError(
        f"no images; all that is there: {ignored_kinds(dict(ignored.most_common(5)))}",
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
