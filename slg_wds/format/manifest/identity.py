"""The fields of a set's identity that readers use, checked once where a set is opened."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from slg_wds.errors import ManifestError
from slg_wds.format.canonical import brief
from slg_wds.format.records.checks import MAX_FULL_CLASSES
from slg_wds.format.records.values import CODINGS

MAX_CLASSES, MAX_CROPS, MAX_SIDE = 1 << 24, 1 << 20, 1 << 14
Test = Callable[[Any], bool]


def _whole(low: int, high: int) -> Test:
    return lambda value: type(value) is int and low <= value <= high


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _text(value: Any) -> bool:
    return type(value) is str


def _classes(value: Any) -> bool:
    return type(value) is list and all(map(_whole(0, MAX_CLASSES - 1), value))


def _maps(value: Any) -> bool:
    return type(value) is list and all(type(one) is dict for one in value)


NEEDED: dict[str, Test] = {
    "label_type": _text,
    "num_classes": _whole(1, MAX_CLASSES),
    "num_crops": _whole(0, MAX_CROPS),
}
# May be missing or null, as of labels that another program made.
OPTIONAL: dict[str, Test] = {
    "k": _whole(1, MAX_CLASSES),
    "values": lambda value: value in CODINGS,
    "tail_classes": _whole(0, MAX_CLASSES),
    "temperature": lambda value: _number(value) and value > 0,
    "class_subset": _classes,
    "teachers": _maps,
    "parents": _maps,
    "precision": _text,
    "embed_images": lambda value: type(value) is dict,
    "imported_from": lambda value: type(value) is dict,
    "extends": lambda value: (
        type(value) is dict and _text(value.get("digest")) and _whole(0, MAX_CROPS)(value.get("first_crop"))
    ),
    "extendable": lambda value: type(value) is bool,
}
_TEACHER: dict[str, Test] = {
    "input_size": _whole(1, MAX_SIDE),
    "interpolation": _text,
    "arch": _text,
    "source": _text,
    "weight": _number,
}


def check_identity(identity: dict[str, Any]) -> None:
    """That what readers take from an identity is of its type and range. Raises ManifestError naming the field."""
    for name, test in NEEDED.items():
        if not test(identity.get(name)):
            raise _wrong(name, identity.get(name))
    _check(identity, OPTIONAL, "")
    if (identity.get("k") or 1) > identity["num_classes"]:
        raise ManifestError(f"k of the identity is {identity['k']}, of {identity['num_classes']} classes")
    if identity["label_type"] == "full" and identity["num_classes"] > MAX_FULL_CLASSES:
        raise _wrong("num_classes", identity["num_classes"])
    for number, teacher in enumerate(identity.get("teachers") or []):
        _check(teacher, _TEACHER, f"teachers[{number}].")


def _check(fields: dict[str, Any], tests: dict[str, Test], before: str) -> None:
    for name, test in tests.items():
        value = fields.get(name)
        if value is not None and not test(value):
            raise _wrong(before + name, value)


def _wrong(name: str, value: Any) -> ManifestError:
    return ManifestError(f"{name} of the identity is {brief(value)}")
