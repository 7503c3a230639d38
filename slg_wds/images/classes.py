"""Class folders -> class numbers of a teacher: by WordNet ids, by numbers, or by a class map."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from slg_wds.console import first_few
from slg_wds.errors import ImageSourceError, UsageError
from slg_wds.files import lines_of, read_text, reason_of

IMAGENET = 1000  # its classes
WORDNET_ID = re.compile(r"(n\d{8})(?![0-9A-Za-z])")
NUMBER = re.compile(r"[0-9]{1,9}")
NO_TARGET = frozenset({"-", "-1", "null"})


def wordnet_id(name: str) -> str | None:
    """Return the WordNet id at the start of a folder's name, as in `n02085620-Chihuahua`; None without one."""
    found = WORDNET_ID.match(name)
    return found[1] if found else None


def imagenet_targets(classes: Sequence[str]) -> list[int | None] | None:
    """Number class folders by ImageNet-1k.

    Returns:
        The class number (0..999) of each folder; None for a folder whose WordNet id is none of the 1000 classes. None
        instead of a list if at least half of the folders are not named by WordNet ids.

    Raises:
        ImageSourceError: most folders are named by WordNet ids and some are not. The message names the latter.
    """
    ids = [wordnet_id(name) for name in classes]
    others = [name for name, one in zip(classes, ids, strict=True) if one is None]
    if 2 * len(others) >= len(classes):
        return None
    if others:
        raise ImageSourceError(
            f"{len(others)} of {len(classes)} class folders are not named by a WordNet id, as the others are: "
            f"{first_few(others)}",
            hint="move them away, or give them a class (`-` for no target) in a --class-map",
        )
    from timm.data.imagenet_info import ImageNetInfo

    names: list[str] = ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
    number = {name: i for i, name in enumerate(names)}
    return [number.get(one or "") for one in ids]


def folder_numbers(classes: Sequence[str]) -> list[int] | None:
    """Return each class folder's name as a number (zero-padded or not); None if any name is not a number."""
    if not classes or not all(NUMBER.fullmatch(name) for name in classes):
        return None
    return [int(name) for name in classes]


def read_class_map(path: str) -> dict[str, int | None]:
    """Read a class map: lines `name number`, in which # begins a comment, or a JSON object.

    The number `-`, `null` or `-1` means that the folder's images have no target. Of an absolute path or URL only the
    last part counts.

    Returns:
        Name of each class folder -> its class number, or None for no target.

    Raises:
        UsageError: the file cannot be read, has another form, or gives one name two numbers.
    """
    try:
        text = read_text(path)
        pairs = _from_json(text) if text.lstrip().startswith("{") else _from_lines(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"the class map {path} cannot be read: {reason_of(error)}") from None
    if not pairs:
        raise UsageError(f"the class map {path} names no class")
    mapping: dict[str, int | None] = {}
    for name, number in pairs:
        absolute = name.startswith("/") or "://" in name
        folder = name.rstrip("/").rpartition("/")[2] if absolute else name
        if mapping.setdefault(folder, number) != number:
            raise UsageError(f"the class map {path} gives {folder!r} two numbers")
    return mapping


def _from_json(text: str) -> list[tuple[str, int | None]]:
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    return [(name, _class_number(value)) for name, value in map(_pair, pairs)]


def _pair(pair: Any) -> tuple[str, Any]:
    if not isinstance(pair, tuple):
        raise ValueError(f"{str(pair)[:100]} is not a name and a class number")
    return pair


def _class_number(value: Any) -> int | None:
    if value is None or value == "-" or (type(value) is int and value == -1):
        return None
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:100]!r} is not a class number")
    return value


def _from_lines(text: str) -> list[tuple[str, int | None]]:
    pairs: list[tuple[str, int | None]] = []
    for number, line in lines_of(text):
        name, _, value = line.replace("\t", " ").rpartition(" ")
        if not name.strip() or not (value in NO_TARGET or (value.isascii() and value.isdigit())):
            raise ValueError(f"line {number} is not `name number`: {line[:100]!r}")
        pairs.append((name.strip(), None if value in NO_TARGET else int(value)))
    return pairs
