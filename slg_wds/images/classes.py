"""Class folders -> class numbers of a teacher: WordNet ids, or a file that says so."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slg_wds.errors import ImageSourceError, UsageError

WORDNET_ID = re.compile(r"n\d{8}")


def imagenet_targets(classes: Sequence[str]) -> list[int] | None:
    """ImageNet-1k's class number (0..999) of each class folder, None where they are not all WordNet ids.

    Raises ImageSourceError naming the ids that are not among ImageNet's 1000.
    """
    if not classes or not all(WORDNET_ID.fullmatch(name) for name in classes):
        return None
    from timm.data.imagenet_info import ImageNetInfo

    names: list[str] = ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
    number = {name: i for i, name in enumerate(names)}
    unknown = [name for name in classes if name not in number]
    if unknown:
        raise ImageSourceError(
            f"{len(unknown)} of the {len(classes)} class folders are not among ImageNet's 1000 classes: "
            f"{', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}",
            hint="say which classes they are with --class-map",
        )
    return [number[name] for name in classes]


def read_class_map(path: str) -> dict[str, int]:
    """Class folder -> class number, of a file of lines "name number" (# begins a comment line) or a JSON object.

    Raises UsageError for a file that cannot be read or says anything else, or one name twice.
    """
    try:
        text = Path(path).expanduser().read_text("utf-8")
        pairs = _from_json(text) if text.lstrip().startswith("{") else _from_lines(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"the class map {path} cannot be read: {error}") from None
    if not pairs:
        raise UsageError(f"the class map {path} names no class")
    mapping: dict[str, int] = {}
    for name, number in pairs:
        if mapping.setdefault(name, number) != number:
            raise UsageError(f"the class map {path} gives {name!r} two numbers")
    return mapping


def _from_json(text: str) -> list[tuple[str, int]]:
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    for pair in pairs:
        if not isinstance(pair, tuple) or type(pair[1]) is not int or pair[1] < 0:
            raise ValueError(f"{pair!r} is not a name and a class number")
    return pairs


def _from_lines(text: str) -> list[tuple[str, int]]:
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, value = line.strip().replace("\t", " ").rpartition(" ")
        if not name.strip() or not (value.isascii() and value.isdigit()):
            raise ValueError(f"line {number} is not `name number`: {line.strip()!r}")
        pairs.append((name.strip(), int(value)))
    return pairs
