"""Which rule of recovery the stored columns of labels can give."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RuleError
from slg_wds.labels.types import LabelType, parse_label_type

# Below 4 crops num_crops // 4 leaves a tail without classes, which is stored as none at all.
_MIN_CROPS_FOR_TAIL = 4


class Shape(Protocol):
    """The part of a tail that recovery reads: see slg_wds.format.record.Tail."""

    @property
    def classes(self) -> NDArray[np.int64]: ...
    @property
    def probs(self) -> NDArray[np.float32]: ...
    @property
    def rest(self) -> float: ...


class Columns(Protocol):
    """The part of a record that recovery reads: see slg_wds.format.record.Record."""

    @property
    def index(self) -> NDArray[np.int64]: ...
    @property
    def value(self) -> NDArray[np.float32]: ...
    @property
    def tail(self) -> Any: ...  # Shape | None; a protocol's own union defeats mypy's check of dataclasses
    @property
    def coding(self) -> str: ...
    @property
    def full(self) -> bool: ...
    @property
    def num_classes(self) -> int: ...


def default_rule(*, full: bool, coding: str, tail: bool) -> LabelType:
    """The rule by which columns are read when nobody asked for one; its k is None: the stored one."""
    if full:
        return LabelType("full")
    if coding == "none":
        return LabelType("hard")
    return LabelType("marginal_smoothing")


def resolve_rule(
    rule: str | LabelType,
    *,
    k: int,
    num_classes: int,
    full: bool = False,
    coding: str = "float32",
    tail: bool,
) -> LabelType:
    """The rule with its k filled in (for hard and smoothing too: 1; for full: num_classes).

    k: classes stored per crop, 1 to num_classes. tail: whether a shared tail is stored.
    Raises UsageError for a name that is no rule, RuleError, saying what can be given, for one that the columns
    cannot give.
    """
