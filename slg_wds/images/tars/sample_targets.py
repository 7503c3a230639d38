"""The target member of a sample -> a class number or the name of a class."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import ImageSourceError, UsageError

RawTarget = int | str | None  # a class number, the name of a class, or no target
M = TypeVar("M")

# Fields of a .json member; the first one that is present is the target.
TARGET_FIELDS = ("label", "cls", "target", "class_id", "class")
TAR = "tar"  # a target field that means: the tar's name is the class
MAX_NAME = 200  # characters of a class name; longer texts are captions

_NUMBER = re.compile(r"(-?\d+)(?:\.0*)?", re.ASCII)


@dataclass(frozen=True)
class TargetField:
    """Where the target of a sample is: in which member, and where inside it.

    Attributes:
        member: extension of the member, in lower case; None: .cls, else .json.
        path: names and list positions inside a JSON document; None: one of TARGET_FIELDS of a .json, else the whole
            member.
        plain: whether `path` may also be the extension of a member. A member of that extension is preferred.
    """

    member: str | None = None
    path: tuple[str, ...] | None = None
    plain: bool = False

    @property
    def from_tar(self) -> bool:
        """Whether the tar's name is the class."""
        return self.member == TAR

    def choose(self, members: Mapping[str, M]) -> tuple[M | None, tuple[str, ...] | None]:
        """Return (the member with the target, None if the sample has none; the path inside it).

        members: those of a sample, by extension in lower case.
        """
        if self.member is None:
            return members.get("cls") or members.get("json"), None
        if self.plain and self.member not in members:
            return members.get("json"), self.path
        return members.get(self.member), None if self.plain else self.path


USUAL = TargetField()


def parse_target_field(text: str | None) -> TargetField:
    """Parse --target-field: `cls`, `json:meta.label`, `json.meta.label`, `label` (a member or .json field), or `tar`.

    Raises:
        UsageError: the text has an empty part.
    """
    if text is None:
        return USUAL
    member, colon, path = text.removeprefix(".").partition(":")
    parts = member.split(".")
    if not colon and "json" in parts[:-1]:
        at = parts.index("json") + 1
        member, path = ".".join(parts[:at]), ".".join(parts[at:])
    names = tuple(path.split(".")) if path else None
    if not member or "" in parts or (names and "" in names) or (colon and not path):
        raise UsageError(
            f"--target-field {text!r} has an empty part", hint="for example cls or json:meta.label"
        )
    plain = not path and parts[-1] not in ("json", TAR)
    return TargetField(member.lower(), tuple(parts) if plain else names, plain)


def read_target(data: bytes, is_json: bool, field: TargetField, path: tuple[str, ...] | None) -> RawTarget:
    """Read the target in a member.

    Args:
        data: the member's content.
        is_json: whether its name says that it is a JSON document.
        field: where targets are.
        path: names and list positions inside a JSON document, as `TargetField.choose` returns them.

    Returns:
        A class number, the name of a class, or None for no target.

    Raises:
        ValueError: the member has no valid target. The message says what it has instead.
    """
    text = data.decode("utf-8").strip()
    if not is_json and path is None and text[:1] not in ("[", '"', "{"):
        return _scalar(text)
    document = json.loads(text)
    if path is not None:
        return _scalar(_walk(document, path))
    if not isinstance(document, dict):
        if is_json and field.member is None:
            raise ValueError("no JSON object")
        return _scalar(document)
    name = next((name for name in TARGET_FIELDS if name in document), None)
    return None if name is None else _scalar(document[name])


def _walk(document: Any, path: Sequence[str]) -> Any:
    """Return the value at a path of a JSON document."""
    for name in path:
        if isinstance(document, list) and name.isdigit() and int(name) < len(document):
            document = document[int(name)]
        elif isinstance(document, dict) and name in document:
            document = document[name]
        else:
            raise ValueError(f"there is no {'.'.join(path)} in it")
    return document


def _scalar(value: Any) -> RawTarget:
    """Return a class number or name. Texts and floats may be numbers; a list must have one element."""
    while isinstance(value, list):
        if len(value) != 1:
            raise ValueError(f"a list of {len(value)}; --target-field json:label.0 takes its first")
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or (type(value) is int):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{type(value).__name__} {str(value)[:20]!r}")
    if number := _NUMBER.fullmatch(value.strip()):
        return int(number[1])
    if len(value) > MAX_NAME:
        raise ValueError(f"a text of {len(value)} characters")
    return value.strip()


def number_targets(targets: Sequence[RawTarget], named: bool) -> tuple[list[str] | None, NDArray[np.int64]]:
    """Number the classes. Names are numbered in sorted order, as class folders are.

    Args:
        targets: of all samples.
        named: whether numbers count as names too, because a class map gives them other numbers.

    Returns:
        (names of the classes, None if targets are numbers; class number of each sample, int64 [N], -1 for none).

    Raises:
        ImageSourceError: some targets are numbers and some are names.
    """
    name = next((target for target in targets if isinstance(target, str)), None)
    if name is None and not named:
        return None, np.array([-1 if target is None else target for target in targets], np.int64)
    number = None if named else next((target for target in targets if isinstance(target, int)), None)
    if number is not None:
        raise ImageSourceError(
            f"some targets are numbers ({number}) and some are names ({name!r})",
            hint="--class-map FILE gives both their class numbers",
        )
    classes = sorted({str(target) for target in targets if target is not None})
    place = {text: at for at, text in enumerate(classes)}
    numbers = [-1 if target is None else place[str(target)] for target in targets]
    return classes, np.array(numbers, np.int64)
