"""Which images of a folder a list file names: the 1% and 10% subsets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from slg_wds.errors import ImageSourceError, UsageError

SHOWN = 5


def choose_listed(list_file: str, paths: list[str], split: str | None = None) -> list[str]:
    """Those of the sorted `paths` that a list file names, in their order.

    A line is a path below the source (also one that begins with the split's folder), or a base name where only one
    image has it. Blank lines and lines that begin with # are passed over.

    Raises:
        UsageError: a file that cannot be read or lists nothing.
        ImageSourceError: listed images that are not there, are ambiguous or listed twice; the first few are named.
    """
    lines = _read_lines(list_file)
    known = set(paths)
    bases: dict[str, str | None] = {}  # None: more than one image has it
    if not known.issuperset(lines):
        for path in paths:
            base = path.rpartition("/")[2]
            bases[base] = None if base in bases else path
    found = [_resolve(line, known, bases, split) for line in lines]
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
        text = Path(list_file).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list {list_file} cannot be read: {error}") from None
    lines = [line.strip().removeprefix("./") for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise UsageError(f"the list {list_file} names no image")
    return lines


def _resolve(line: str, known: set[str], bases: dict[str, str | None], split: str | None) -> str | None:
    """The path that a line means, "" for none, None for several."""
    if line in known:
        return line
    if split and line.startswith(f"{split}/") and line[len(split) + 1 :] in known:
        return line[len(split) + 1 :]
    return bases.get(line, "")


def _complain(what: str, list_file: str, names: Iterable[str]) -> None:
    wrong = list(names)
    if wrong:
        shown = ", ".join(wrong[:SHOWN]) + (", ..." if len(wrong) > SHOWN else "")
        raise ImageSourceError(f"{len(wrong)} of the list {list_file} {what}: {shown}")
