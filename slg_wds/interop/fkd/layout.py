"""Where the label files of images lie below a folder, and under which names the readers look for them.

The path of an image is relative to the folder of class folders. A stem is such a path with its name cut at the first
dot, as the original names label files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from slg_wds.errors import InteropError

EXTENSION = ".tar"
# How many of the last components of an image's path each reader appends to its --softlabel_path.
COMPONENTS = {"fkd": 3, "mealv2": 4}


@dataclass(frozen=True)
class Layout:
    """How the path of an image becomes that of its label file.

    Attributes:
        base: the folder, "" or ending in "/".
        folders: the folders that the paths of images continue: data set and split.
        count: how many of the last components name a file, counted from the folders on; None for all.
    """

    base: str
    folders: tuple[str, ...] = ()
    count: int | None = None

    @property
    def prefix(self) -> str:
        """The folder that holds the class folders of images that lie directly in these."""
        return self.base + "".join(f"{folder}/" for folder in self.folders)

    def parts(self, path: str) -> list[str]:
        """Return what follows `base` in the path of a file, as components."""
        parts = [*self.folders, *path.split("/")]
        return parts if self.count is None else parts[-self.count :]

    def name(self, stem: str) -> str:
        """Return the path of the label file of an image."""
        if self.count is None:
            return f"{self.prefix}{stem}{EXTENSION}"
        return f"{self.base}{'/'.join(self.parts(stem))}{EXTENSION}"

    def inner(self, name: str) -> str:
        """Return the path of a label file without what may differ from place to place: its base and extension."""
        return name[len(self.prefix if self.count is None else self.base) : -len(EXTENSION)]

    def files(self, paths: Iterable[str], images: Set[str]) -> frozenset[str]:
        """Return the label files that lie where those of images would, of other images too.

        Args:
            paths: of all label files.
            images: the stems of the images.
        """
        tops: set[str] = set()  # folders beside the prefix, of images in whose names it is cut off
        if self.count is not None:
            tops = {self.parts(stem)[0] for stem in images} - set(self.folders[:1])
        start = len(self.base)
        return frozenset(
            path
            for path in paths
            if path.startswith(self.prefix)
            or (path.startswith(self.base) and path[start:].partition("/")[0] in tops)
        )


def find_layout(url: str, paths: list[str], images: Set[str], split: str | None = None) -> Layout:
    """Find where a folder has the label files of images.

    Where images lie in folders below the class folders, the readers look for those at another depth: for
    train/CLASS/NAME.tar and CLASS/SUB/NAME.tar, always by the last components of the path.

    Args:
        url: of the folder, for messages.
        paths: of all label files in it.
        images: the stems of the images.
        split: the name of the folder to prefer where several hold label files of these images.

    Raises:
        InteropError: no folder fits, or several do.
    """
    found = _places(paths, images)
    if split is not None and len(found) > 1:
        found = [one for one in found if f"/{one.prefix}".endswith(f"/{split}/")] or found
    if not found:
        raise InteropError(
            f"none of its {len(paths)} label files is one of the images', such as {min(images)}{EXTENSION}",
            url=url,
            hint=f"it holds files such as {paths[0]}",
        )
    present = set(paths)

    def files(layout: Layout) -> set[str]:
        return present.intersection(map(layout.name, images))

    deep = any(stem.count("/") > 1 for stem in images)
    layouts = [*found, *(other for one in found for other in _as_readers_look(one))] if deep else found
    best = max(layouts, key=lambda layout: len(files(layout))) if len(layouts) > 1 else layouts[0]
    if len(found) > 1 and any(not files(one) <= files(best) for one in found):
        places = (one.prefix or "the folder itself" for one in found[:5])
        raise InteropError(
            f"it has label files of these images in several folders: {', '.join(places)}",
            url=url,
            hint="give one of these folders",
        )
    return best


def _places(paths: list[str], images: Set[str]) -> list[Layout]:
    """Return the folders in which files are named by whole paths of images; else by the last components of these."""
    if found := _prefixes(paths, images):
        return [Layout(prefix) for prefix in found]
    for count in sorted(COMPONENTS.values(), reverse=True):
        ends = {"/".join(stem.split("/")[-count:]) for stem in images if stem.count("/") >= count}
        if found := _prefixes(paths, ends):
            return [Layout(prefix, (), count) for prefix in found]
    return []


def _prefixes(paths: list[str], ends: Set[str]) -> list[str]:
    """Return what stands before the ends in paths of label files, sorted. Of a path, the longest end counts."""
    found = set()
    for path in paths:
        stem, place = path[: -len(EXTENSION)], 0
        while place >= 0:
            if stem[place:] in ends:
                found.add(stem[:place])
                break
            place = stem.find("/", place) + 1 or -1
    return sorted(found)


def _as_readers_look(found: Layout) -> Iterator[Layout]:
    """Yield the layouts that have class folders in the same place, and whose paths are cut as a reader cuts them."""
    folders = found.prefix.split("/")[:-1]
    for count in COMPONENTS.values():
        for cut in range(min(count, len(folders) + 1)):
            kept = len(folders) - cut
            yield Layout("".join(f"{one}/" for one in folders[:kept]), tuple(folders[kept:]), count)
