"""A set of embeddings read as labels: distributions over the prototypes of a bank, without the teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from slg_wds.banks import Bank, read_bank
from slg_wds.concurrency.threads import threads_of_forwards
from slg_wds.config import EnsembleConfig
from slg_wds.ensembling.parents import Parent, open_parents
from slg_wds.errors import LabelSetError, RecordError, UsageError
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.records.embeddings.by_name import of_crops
from slg_wds.format.records.record import Record
from slg_wds.labelset.combining.joining import chains
from slg_wds.labelset.embeddings import embedding_of, teacher_of
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.opening import labels_at
from slg_wds.store import Location

PART_NUMBERS = 1 << 22  # probabilities of one run of crops: 64 crops of 65,536 prototypes
LABEL_TYPE, VALUES, TAIL_CLASSES = "marginal_smoothing_k5", "float16", 64  # as `generate` has them

_in_use: WeakValueDictionary[str, Bank] = WeakValueDictionary()  # banks by their digest


@dataclass(frozen=True)
class PrototypeRule:
    """How embeddings become labels. Picklable.

    Attributes:
        path: of the bank's file.
        sha256: of that file, hex.
        temperature: of the softmax.
        embedding: the name of the embedding; None for the bank's own or the only one.
    """

    path: str
    sha256: str
    temperature: float
    embedding: str | None = None

    @classmethod
    def of(cls, config: EnsembleConfig) -> PrototypeRule | None:
        """Return the rule that the options ask for; None without --bank.

        Raises:
            UsageError: neither the options nor the bank name a temperature.
            WeightsError: the bank cannot be read.
        """
        if config.bank is None:
            return None
        bank = read_bank(config.bank)
        return cls(config.bank, bank.sha256, bank.temperature_or(config.bank_temp), config.embedding)

    def read_bank(self) -> Bank:
        """Read the bank again, unless this process has it: it may be large.

        Raises:
            LabelSetError: the file has been replaced by another since the start.
        """
        bank = _in_use.get(self.sha256) or read_bank(self.path)
        if bank.sha256 != self.sha256:
            raise LabelSetError("the bank has been replaced by another since the start", url=self.path)
        _in_use[self.sha256] = bank
        return bank


def open_members(
    sets: Sequence[Location], weights: Sequence[float] | None, rule: PrototypeRule | None
) -> list[Parent]:
    """Open label sets, as `open_parents` does, or one set of embeddings that a bank turns into labels.

    Args:
        sets: where the sets lie.
        weights: of the members, in the order of the sets; None for equal weights.
        rule: how embeddings become labels; None for sets of labels.

    Raises:
        UsageError: the weights or the bank do not fit the sets.
        WeightsError: the bank cannot be read.
        LabelSetError, FormatError, StoreError: a set cannot be opened, or the bank has been replaced.
    """
    if rule is None:
        return open_parents(sets, weights)
    found = chains([labels_at(location, embeddings=True) for location in sets])
    if len(found) > 1:
        raise UsageError(
            f"--bank makes labels of one set of embeddings, not {len(found)}",
            hint="make a set of labels of each, then merge those",
        )
    return [PrototypeParent(found[0], rule)]


class PrototypeParent(Parent):
    """A set of embeddings, whose records are read as full labels over the prototypes.

    Args:
        chain: the set and those that extend it, in order.
        rule: how embeddings become labels.

    Raises:
        UsageError: the set holds no embedding of that name, or the bank is not for it.
        LabelSetError: the bank has been replaced.
    """

    def __init__(self, chain: Sequence[LabelSet], rule: PrototypeRule) -> None:
        from slg_wds.banks.head import BankHead

        super().__init__(chain, 1.0)
        bank = rule.read_bank()
        self._stored = self.identity
        self._embedding = _checked_embedding(chain[-1], bank, rule.embedding)
        self._head = BankHead(bank, rule.temperature)
        self.identity = self._as_labels(rule, bank.size)
        self.tail_classes, self.rule, self.stores_all = TAIL_CLASSES, None, True

    def describe(self) -> dict[str, Any]:
        """Return what the identity of the labels says of the embeddings that they were made of."""
        kind = next(one for one in self._stored.embeddings or [] if one["name"] == self._embedding)
        coding = {name: value for name, value in kind.items() if name not in ("name", "dim")}
        fields = {name: value for name, value in super().describe().items() if name != "tail_classes"}
        return {
            **fields,
            "label_type": self._stored.label_type,
            "embedding": self._embedding,
            **coding,
        }

    def labelled(self, record: Record) -> Record:
        """Return a record of `read` with distributions over the prototypes in place of embeddings."""
        return self._labelled(record, slice(None))

    def parts(self, record: Record) -> Iterator[Record]:
        """Yield what `labelled` returns, a run of crops at a time: PART_NUMBERS probabilities, or a single crop."""
        most = max(1, PART_NUMBERS // self._head.bank.size)
        for first in range(0, max(record.num_crops, 1), most):
            yield self._labelled(record, slice(first, first + most))

    def _as_labels(self, rule: PrototypeRule, classes: int) -> Identity:
        """Return the identity of the embeddings read as labels. What is stored of the labels is still open."""
        teacher = teacher_of(self._stored, self._embedding)
        fields = {
            name: value for name, value in self._stored.items() if name not in ("embeddings", "normalize")
        }
        fields |= {"label_type": LABEL_TYPE, "k": None, "values": VALUES, "tail_classes": TAIL_CLASSES}
        fields |= {"num_classes": classes, "temperature": rule.temperature, "bank_sha256": rule.sha256}
        return Identity.from_json({**fields, "teachers": [teacher] if teacher else []})

    def _labelled(self, record: Record, crops: slice) -> Record:
        import torch

        vectors = (of_crops(record.embeddings, crops) or {})[self._embedding].vectors
        with torch.inference_mode(), threads_of_forwards(1):
            probabilities = self._head.probabilities(torch.from_numpy(vectors)).numpy()
        if not np.isfinite(probabilities).all():
            raise RecordError(
                "the scores of the bank's prototypes are too large for float32",
                key=record.key,
                hint="look for large numbers in the bank, or give a higher --bank-temp",
            )
        count, classes = probabilities.shape
        return dataclasses.replace(
            record,
            crops=record.crops[crops],
            flips=record.flips[crops],
            index=np.broadcast_to(np.arange(classes), (count, classes)),
            value=probabilities,
            full=True,
            coding="float32",
            num_classes=classes,
            embeddings=None,
        )


def _checked_embedding(labels: LabelSet, bank: Bank, asked: str | None) -> str:
    """Return the name of the embedding that becomes labels. Raises UsageError unless the bank is for it."""
    name = embedding_of(labels, asked, bank.made_from.get("embedding"))
    (dim,) = [one["dim"] for one in labels.identity.embeddings or [] if one["name"] == name]
    weights = teacher_of(labels.identity, name).get("weights_sha256")
    bank.check_teacher(name, dim, weights, labels.identity.normalize)
    return name
