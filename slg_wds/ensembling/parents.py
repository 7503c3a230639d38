"""The label sets to merge, each with its share of the mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.record import Record
from slg_wds.labels.shares import shares
from slg_wds.labelset.combining.chain import SetChain
from slg_wds.labelset.combining.joining import chains
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.opening import labels_at
from slg_wds.store import Location


class Parent(SetChain):
    """One member of the mean: a label set, or a set together with the sets that extend it.

    Attributes:
        share: its weight in the mean, 0..1; the shares of all members sum to 1.
        tail_classes: the most classes that its shared tails keep; 0 without tails.
        rule: the rule of recovery; None to use all that is stored.
        stores_all: whether records tell the probability of every class.
    """

    def __init__(self, chain: Sequence[LabelSet], share: float) -> None:
        super().__init__(chain)
        self.share = share
        self.tail_classes = self.identity.tail_classes
        # A stored tail is used even if the label type does not name it. Without one, the label type is the rule.
        self.rule = None if self.tail_classes else self.identity.label_type
        self.stores_all = self.identity.label_type in ("full", LOW_RANK)

    def describe(self) -> dict[str, Any]:
        """Return what the identity of a merged set says of this parent."""
        identity = self.identity
        return {
            "digest": self.labels.digest,
            "weight": self.share,
            "label_type": identity.label_type,
            "values": identity.coding,
            "tail_classes": self.tail_classes,
            **({"joined": [keyed.labels.digest for keyed in self.chain[:-1]]} if len(self.chain) > 1 else {}),
        }

    def labelled(self, record: Record) -> Record:
        """Return a record of `read` with labels: as it is, since it holds them."""
        return record

    def parts(self, record: Record) -> Iterator[Record]:
        """Yield a record of `read` with labels: a run of crops at a time if all together would take much memory."""
        yield record


def open_parents(sets: Sequence[Location], weights: Sequence[float] | None) -> list[Parent]:
    """Open label sets. A set and those that extend it become one member of the mean.

    Args:
        sets: where the sets lie.
        weights: of the members, in the order of the sets; None for equal weights.

    Raises:
        UsageError: the weights do not fit the members.
        LabelSetError, FormatError, StoreError: a set cannot be opened.
    """
    found = chains([labels_at(location, embeddings=True) for location in sets])
    return [
        Parent(chain, share)
        for chain, share in zip(found, shares(weights, len(found), "label set"), strict=True)
    ]
