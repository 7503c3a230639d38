"""What a member of a sample says of its class: a number, or the name of a class."""

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
Member = TypeVar("Member")

TARGET_FIELDS = ("label", "cls", "target", "class_id", "class")  # of a .json member: the first that there is
TAR = "tar"  # as a target field: the tar's own name is the class
MAX_NAME = 200  # characters of a class name: a caption is none

_NUMBER = re.compile(r"(-?\d+)(?:\.0*)?", re.ASCII)


@dataclass(frozen=True)
class TargetField:
    """Where the target of a sample stands: which of its members, and where in that one.

    Attributes:
        member: its extension in lower case; None: .cls, else .json.
        path: names and list positions in its JSON document; None: the usual names of a .json, else all of the member.
        plain: the path is also the extension of a member, which goes first.
    """

    member: str | None = None
    path: tuple[str, ...] | None = None
    plain: bool = False

    @property
    def from_tar(self) -> bool:
        """Whether the tar's own name is the class."""
        return self.member == TAR

    def choose(self, members: Mapping[str, Member]) -> tuple[Member | None, tuple[str, ...] | None]:
        """The member that holds the target, and the path in it; None where the sample has no such member."""
        if self.member is None:
            return members.get("cls") or members.get("json"), None
        if self.plain and self.member not in members:
            return members.get("json"), self.path
        return members.get(self.member), None if self.plain else self.path


USUAL = TargetField()


def parse_target_field(text: str | None) -> TargetField:
    """`cls`, `json:meta.label`, `json.meta.label`, `label` (a member, else a field of .json), or `tar`.

    Raises UsageError for an empty part.
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
    """The target that a member says.

    Args:
        is_json: whether the member is a JSON document.
        path: as `TargetField.choose` gives it.

    Raises ValueError, its text saying what is there instead.
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
    """What stands at a path of a JSON document."""
    for name in path:
        if isinstance(document, list) and name.isdigit() and int(name) < len(document):
            document = document[int(name)]
        elif isinstance(document, dict) and name in document:
            document = document[name]
        else:
            raise ValueError(f"there is no {'.'.join(path)} in it")
    return document


def _scalar(value: Any) -> RawTarget:
    """A class number or name: a number may be whole or a text, and may stand alone in a list."""
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
    """(names of the classes or None, the class number of each sample, int64 [N], -1 for none).

    Args:
        named: numbers are names too, which a class map gives other numbers.

    Classes with names are numbered in sorted order, as class folders are. Raises ImageSourceError where some targets
    are numbers and some are names.
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
