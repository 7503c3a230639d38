"""Which images of a folder a list file names: the 1% and 10% subsets."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from slg_wds.errors import ImageSourceError, UsageError
from slg_wds.files import Spellings, lines_of, read_text

LABELLED = re.compile(r"(.*\S)\s+-?\d+")  # a path and a class number, as many data sets list them
SHOWN = 5


def choose_listed(list_file: str, paths: Sequence[str], root: str, split: str | None = None) -> list[str]:
    """Those of the sorted `paths` that a list file names, in their order.

    Blank lines and lines that begin with # are passed over; so is a class number after a path.

    Args:
        paths: the images below `root`. A line is one of them; or one with the split's folder, `root` or a folder
            above them in front; or a base name that only one image has.

    Raises:
        UsageError: a file that cannot be read or lists nothing.
        ImageSourceError: listed images that are not there, are ambiguous or listed twice; the first few are named.
    """
    lines = _read_lines(list_file)
    images = _Images(paths, root, split)
    found = [images.find(line) for line in lines]
    _complain(
        "are not among the images", list_file, (n for n, path in zip(lines, found, strict=True) if path == "")
    )
    _complain(
        "are the names of several images",
        list_file,
        (n for n, path in zip(lines, found, strict=True) if path is None),
    )
    chosen = Counter(found)
    _complain(
        "are listed more than once", list_file, (str(path) for path, count in chosen.items() if count > 1)
    )
    return [path for path in paths if path in chosen]


def _read_lines(list_file: str) -> list[str]:
    try:
        lines = [line for _, line in lines_of(read_text(list_file))]
    except (OSError, ValueError) as error:
        raise UsageError(f"the list {list_file} cannot be read: {error}") from None
    if not lines:
        raise UsageError(f"the list {list_file} names no image")
    return lines


class _Images:
    """The images that lines of a list can mean."""

    def __init__(self, paths: Sequence[str], root: str, split: str | None) -> None:
        self._paths = Spellings(paths)
        self._bases: dict[str, str | None] | None = None
        roots = [root] if "://" in root else [root, os.path.realpath(root)]
        self._before = tuple({f"{one.rstrip('/')}/" for one in roots})
        self._split = f"{split}/" if split else None

    def find(self, line: str) -> str | None:
        """The path that a line means, "" for none, None for several."""
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


def _complain(what: str, list_file: str, names: Iterable[str]) -> None:
    wrong = list(names)
    if wrong:
        shown = ", ".join(wrong[:SHOWN]) + (", ..." if len(wrong) > SHOWN else "")
        raise ImageSourceError(f"{len(wrong)} of the list {list_file} {what}: {shown}")
