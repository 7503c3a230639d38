"""Which rules of recovery the stored columns of labels can give."""

from __future__ import annotations

from dataclasses import dataclass

from slg_wds.console import counted
from slg_wds.errors import RuleError
from slg_wds.format.recovery.label_types import LabelType, parse_label_type


@dataclass(frozen=True)
class StoredColumns:
    """What is stored of each distribution.

    Attributes:
        k: classes for each crop, 1 to num_classes; for full labels num_classes.
        num_classes: C.
        full: whether every probability is stored, in class order.
        values: whether probabilities are stored; the type `hard` stores none.
        tail: whether a shared tail is stored.
        low_rank: whether the labels are low-rank; then `full` is true too, since they give every probability.
    """

    k: int
    num_classes: int
    full: bool = False
    values: bool = True
    tail: bool = False
    low_rank: bool = False

    @property
    def ambiguous(self) -> bool:
        """Whether what is stored has no rule of its own: the label set says which of several is meant."""
        return self.values and not self.full

    def default(self) -> LabelType:
        """Return the rule that uses all that is stored."""
        if self.full:
            return LabelType("lowrank" if self.low_rank else "full")
        if not self.values:
            return LabelType("hard")
        return LabelType("shared_tail" if self.tail else "marginal_smoothing", self.k)

    def resolve(self, rule: str | LabelType | None) -> LabelType:
        """Return the rule to use, with its k.

        Args:
            rule: a label type or its name, where marginal_smoothing and marginal_renorm without k mean the stored k;
                None for the default.

        Raises:
            UsageError: there is no rule of this name.
            RuleError: the columns cannot give it; the error says which they can.
        """
        asked = self.default() if rule is None else parse_label_type(rule) if isinstance(rule, str) else rule
        if lack := self._lack(asked):
            raise RuleError(f"rule {asked} {lack}", hint=f"these labels can give {self.can_give()}")
        if asked.kind in ("marginal_smoothing", "marginal_renorm") and asked.k is None:
            return LabelType(asked.kind, self.k)
        return asked

    def can_give(self) -> str:
        """Return the rules that the columns can give, in words."""
        if not self.values:
            return "hard"
        upto = "_k1" if self.k == 1 else f"_k1 to _k{self.k}"
        names = ["hard", "smoothing", f"marginal_smoothing{upto}", f"marginal_renorm{upto}"]
        if self.full:
            names += ["full", "lowrank"] if self.low_rank else ["full"]
        elif self.tail:
            names.append(f"shared_tail_k{self.k}")
        return ", ".join(names)

    def _lack(self, rule: LabelType) -> str | None:
        if rule.kind == "hard":
            return None
        if not self.values:
            return "needs probabilities, and only the top class is stored"
        if rule.kind == "lowrank":
            return None if self.low_rank else "needs low-rank labels"
        if rule.kind == "full":
            return (
                None if self.full else f"needs all {self.num_classes} probabilities, and {self.k} are stored"
            )
        if rule.k is not None and rule.k > self.k:
            return f"needs {counted(rule.k, 'class', 'classes')} per crop, and the set stores {self.k}"
        if rule.kind == "shared_tail":
            return self._lack_of_tail(rule)
        return None

    def _lack_of_tail(self, rule: LabelType) -> str | None:
        if self.full or not self.tail:
            return "needs a shared tail, and none is stored"
        # The tail holds what lies outside *these* k classes. With a lower k, it would lack the classes between.
        return (
            None
            if rule.k == self.k
            else f"needs the shared tail outside {rule.k} classes, and the one outside {self.k} is stored"
        )
