"""List files: which images of a folder to use, such as the 1% and 10% subsets of ImageNet."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from slg_wds.console import first_few
from slg_wds.errors import ImageSourceError, UsageError
from slg_wds.files import Spellings, lines_of, read_text, reason_of

LABELLED = re.compile(r"(.*\S)\s+-?\d+")  # a path and a class number, the form of many data sets' lists


def select_listed(list_file: str, paths: Sequence[str], root: str, split: str | None = None) -> list[str]:
    """Return the paths that a list file names, in the order of `paths`.

    Each line names one image: by its path below `root`; by that path with the split's folder or `root` in front; or by
    a base name that only one image has. A class number after the name is ignored, and so are blank lines and lines that
    begin with #.

    Args:
        list_file: path of the list.
        paths: of all images below `root`, sorted.
        root: path or URL of the folder of images.
        split: name of the split's folder, if `root` is one.

    Raises:
        UsageError: the list cannot be read or is empty.
        ImageSourceError: a listed image is not there, is ambiguous or is listed twice. The message names the first few.
    """
    lines = _read_lines(list_file)
    index = _PathIndex(paths, root, split)
    found = [index.find(line) for line in lines]
    _refuse(
        "not among the images", list_file, (n for n, path in zip(lines, found, strict=True) if path == "")
    )
    _refuse(
        "among the names of several images",
        list_file,
        (n for n, path in zip(lines, found, strict=True) if path is None),
    )
    chosen = Counter(found)
    _refuse("listed more than once", list_file, (str(path) for path, count in chosen.items() if count > 1))
    return [path for path in paths if path in chosen]


def _read_lines(list_file: str) -> list[str]:
    try:
        lines = [line for _, line in lines_of(read_text(list_file))]
    except (OSError, ValueError) as error:
        raise UsageError(f"the list {list_file} cannot be read: {reason_of(error)}") from None
    if not lines:
        raise UsageError(f"the list {list_file} names no image")
    return lines


class _PathIndex:
    """Finds the image that a line of a list names."""

    def __init__(self, paths: Sequence[str], root: str, split: str | None) -> None:
        self._paths = Spellings(paths)
        self._bases: dict[str, str | None] | None = None
        roots = [root] if "://" in root else [root, os.path.realpath(root)]
        self._before = tuple({f"{one.rstrip('/')}/" for one in roots})
        self._split = f"{split}/" if split else None

    def find(self, line: str) -> str | None:
        """Return the path of the image; "" if there is none, None if there are several."""
        labelled = LABELLED.fullmatch(line)
        names = [line, labelled[1]] if labelled else [line]
        forms = (form for name in names for form in self._forms(name))
        whole = next(filter(None, map(self._paths.find, forms)), None)
        bases = (base for base in map(self._by_base, names) if base != "")
        return whole if whole is not None else next(bases, "")

    def _forms(self, name: str) -> Iterator[str]:
        name = name.removeprefix("./")
        yield name
        for before in self._before:
            if name.startswith(before):
                yield name[len(before) :]
        if self._split and name.startswith(self._split):
            yield name[len(self._split) :]

    def _by_base(self, name: str) -> str | None:
        if self._bases is None:
            self._bases = {}
            for path in self._paths.names:
                base = path.rpartition("/")[2]
                self._bases[base] = None if base in self._bases else path
            self._spelled = Spellings(self._bases)
        spelled = self._spelled.find(name.removeprefix("./"))
        return "" if spelled is None else self._bases[spelled]


def _refuse(what: str, list_file: str, names: Iterable[str]) -> None:
    wrong = list(names)
    if wrong:
        verb = "is" if len(wrong) == 1 else "are"
        raise ImageSourceError(f"{len(wrong)} of the list {list_file} {verb} {what}: {first_few(wrong)}")
