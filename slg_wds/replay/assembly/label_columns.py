"""One label set's columns of a batch in the making."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.arrays import I64
from slg_wds.errors import RecordError
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.low_rank.rows import LowRankRows
from slg_wds.format.records.rows import Rows
from slg_wds.format.records.tail import Tail
from slg_wds.format.recovery.temperature import power_of
from slg_wds.labelset.combining.averaging import assumed_temperature
from slg_wds.replay.sources.label_sets import LabelSets

if TYPE_CHECKING:
    import torch

    from slg_wds.labels import SoftLabels, TailBatch
    from slg_wds.labels.logit_tables import LogitTables


@dataclass(frozen=True, eq=False)
class LabelsOfSet:
    """The labels of B crops in one set.

    Attributes:
        index, value: [B, k], as stored; k is 0 for low-rank labels.
        labels: the distributions.
        tail: the shared tails, if there are any.
        tables: the low-rank labels, if they are.
    """

    index: torch.Tensor
    value: torch.Tensor
    labels: SoftLabels
    tail: TailBatch | None = None
    tables: LogitTables | None = None

    def confidence(self) -> torch.Tensor:
        """Return the largest probability of each crop at the temperature that its labels were made at, float [B]."""
        return self.value.amax(dim=1) if self.tables is None else self.tables.confidence()


class LabelColumns:
    """Indices and values [n, c, k], tails [n] and low-rank labels of set `number`; threads fill in disjoint images."""

    def __init__(self, sets: LabelSets, number: int, n: int, c: int) -> None:
        member = sets.members[number]
        self._rule, self._classes = sets.rules[number], sets.num_classes
        self._made_at = assumed_temperature(member)
        self._full = member.label_type == "full"
        self._low_rank: list[tuple[I64, LowRankRows]] | None = [] if member.label_type == LOW_RANK else None
        self._k = member.identity.k or member.num_classes if self._low_rank is None else 0
        self._value = np.zeros((n, c, self._k), np.float32)
        self._index = np.zeros((n, c, 0 if self._full else self._k), np.int64)
        self._index[:] = np.arange(self._index.shape[-1])  # padding, too, has distinct classes
        self._tails: list[Tail | None] | None = [None] * n if member.identity.tail_classes else None

    def put(self, images: I64, rows: Rows) -> None:
        """Put in the labels of these images. Raises RecordError for labels of another kind than the set's."""
        if (rows.low_rank is None) != (self._low_rank is None):
            raise RecordError("its labels are low-rank ones, and the set's are not, or the other way round")
        if rows.value.shape[-1] != self._k or (rows.index is None) != self._full:
            raise RecordError(f"{rows.value.shape[-1]} classes per crop, not {self._k}")
        self._value[images] = rows.value
        if rows.index is not None:
            self._index[images] = rows.index
        if self._tails is not None:
            for i, tail in zip(images.tolist(), rows.tails, strict=True):
                self._tails[i] = tail
        if self._low_rank is not None and rows.low_rank is not None:
            self._low_rank.append((images, rows.low_rank))

    def labels(self, temperature: float | None) -> LabelsOfSet:
        """Return the labels at a temperature; None: at that of the set."""
        import torch

        from slg_wds.labels import from_tables, from_topk, tail_batch
        from slg_wds.labels.logit_tables import logit_tables

        power = power_of(temperature, self._made_at)
        n, c, k = self._value.shape
        value = torch.from_numpy(self._value.reshape(n * c, k))
        if self._full:
            labels = from_topk(None, value, self._classes, rule=self._rule, power=power)
            return LabelsOfSet(torch.arange(self._classes).expand(n * c, -1), value, labels)
        index = torch.from_numpy(self._index.reshape(n * c, k))
        if self._low_rank is not None:
            tables = logit_tables(_in_place(self._low_rank, n, c, self._classes), power)
            return LabelsOfSet(index, value, from_tables(tables, self._rule), tables=tables)
        tails = None
        if self._tails is not None:
            tails = tail_batch(self._tails, np.repeat(np.arange(n), c), self._classes)
        used = tails if self._rule.kind == "shared_tail" else None
        labels = from_topk(index, value, self._classes, rule=self._rule, tail=used, power=power)
        return LabelsOfSet(index, value, labels, tails)


def _in_place(parts: list[tuple[I64, LowRankRows]], n: int, c: int, num_classes: int) -> LowRankRows:
    """Return the low-rank labels of all n images of a batch; those without any, in padding, have even ones."""
    even = LowRankRows(
        num_classes,
        kept=np.zeros(1, np.int64),
        rank=np.zeros(1, np.int64),
        classes=np.full(1, num_classes),
        mean=np.zeros(1, np.float32),
        rows=np.zeros(0, np.float32),
        block=np.zeros((0, c), np.int64),
        coefficients=np.zeros((0, c, 0), np.float32),
    )
    at = np.concatenate([np.zeros(0, np.int64), *(images for images, _ in parts)])
    found = LowRankRows.joined([*(rows for _, rows in parts), *([even] if len(np.unique(at)) < n else [])])
    block = np.full((n, c), len(found.kept) - 1)
    coefficients = np.zeros((n, c, found.coefficients.shape[-1]), np.float32)
    block[at], coefficients[at] = found.block, found.coefficients
    return replace(found, block=block, coefficients=coefficients)
