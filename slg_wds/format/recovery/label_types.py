"""Label types: what is stored of a teacher's distribution, and by which rule it is recovered."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from slg_wds.errors import UsageError
from slg_wds.format.records.embeddings.fields import EMBEDDING

KINDS = ("hard", "smoothing", "marginal_smoothing", "marginal_renorm", "shared_tail", "full", "lowrank")

_BARE = ("hard", "smoothing", "full", "lowrank", "marginal_smoothing", "marginal_renorm")
_WITH_K = re.compile(r"(marginal_smoothing|marginal_renorm|shared_tail)_k([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class LabelType:
    """A label type. `str()` gives its name, which `parse_label_type` reads.

    The kind "embedding" stands for sets that hold embeddings in place of labels. It has no name to parse: no option
    asks for it as labels, and no labels are read by it.

    Attributes:
        kind: one of KINDS, or "embedding".
        k: the N of `_kN`. None for kinds without one, and for marginal_smoothing and marginal_renorm as rules that
            read whatever k is stored.
    """

    kind: str
    k: int | None = None

    def __post_init__(self) -> None:
        if self.kind == EMBEDDING and self.k is None:
            return
        if not (self.kind in _BARE if self.k is None else _WITH_K.fullmatch(str(self))):
            raise UsageError(f"there is no label type of kind {self.kind!r} with k = {self.k}")

    def __str__(self) -> str:
        return self.kind if self.k is None else f"{self.kind}_k{self.k}"

    @property
    def can_have_tail(self) -> bool:
        """Whether records can have a shared tail.

        `hard` stores no probability to go with one; `full` and `lowrank` store all.
        """
        return self.kind not in ("hard", "full", "lowrank", EMBEDDING)

    def check(self, num_classes: int, option: str = "label type") -> None:
        """Raise UsageError if this type needs more classes than `num_classes`; the message calls the type `option`."""
        if self.kind == EMBEDDING:
            return
        if num_classes < 1:
            raise UsageError(f"the number of classes must be at least 1, not {num_classes}")
        if self.k is not None and self.k > num_classes:
            raise UsageError(
                f"{option} {self} needs {self.k} classes, but there are {num_classes}",
                hint=f"the most that fits is {self.kind}_k{num_classes}",
            )

    def stored_k(self, num_classes: int) -> int:
        """Return how many classes of each crop labels of this type store, 1 to `num_classes`; 0 for lowrank, embedding.

        Raises UsageError for a type that can only read (marginal_smoothing without `_kN`) or needs more classes.
        """
        self.check(num_classes)
        if self.kind == "full":
            return num_classes
        if self.kind in ("lowrank", EMBEDDING):
            return 0
        if self.kind in ("hard", "smoothing"):
            return 1
        if self.k is None:
            raise UsageError(
                f"label type {self} names no k, so it can read labels but not make them",
                hint=f"name the k, for instance {self.kind}_k5",
            )
        return self.k


def parse_label_type(name: str) -> LabelType:
    """Return the label type of a name. Raises UsageError, with the nearest names, if there is none."""
    if name in _BARE:
        return LabelType(name)
    if found := _WITH_K.fullmatch(name):
        return LabelType(found[1], int(found[2]))
    near = difflib.get_close_matches(name, _names_like(name), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_names_like('N'))}"
    raise UsageError(f"unknown label type {name!r}", hint=hint)


def _names_like(name: str) -> list[str]:
    # Suggest names with the number that was given: marginal_smooth_k7 means marginal_smoothing_k7.
    digits = re.findall(r"[1-9][0-9]{0,8}", name)
    n = digits[-1] if digits else "N" if name == "N" else "5"
    kinds = ("marginal_smoothing", "marginal_renorm", "shared_tail")
    return ["hard", "smoothing", *(f"{kind}_k{n}" for kind in kinds), *_BARE[4:], "full", "lowrank"]
