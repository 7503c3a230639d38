"""One label set's columns of a batch in the making."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from slg_wds.errors import RecordError
from slg_wds.format.records.rows import Rows
from slg_wds.format.records.tail import Tail
from slg_wds.format.recovery.temperature import power_of
from slg_wds.replay.sources.label_sets import LabelSets

if TYPE_CHECKING:
    import torch

    from slg_wds.labels import SoftLabels, TailBatch


class LabelColumns:
    """Indices and values [n, c, k] and tails [n] of set `number`; threads fill in disjoint images."""

    def __init__(self, sets: LabelSets, number: int, n: int, c: int) -> None:
        identity = sets.members[number].identity
        self._rule, self._classes = sets.rules[number], sets.num_classes
        self._made_at = sets.members[number].temperature
        self._full, self._k = sets.members[number].label_type == "full", identity.k or identity.num_classes
        self._value = np.zeros((n, c, self._k), np.float32)
        self._index = np.zeros((n, c, 0 if self._full else self._k), np.int64)
        self._index[:] = np.arange(self._index.shape[-1])  # padding, too, has distinct classes
        self._tails: list[Tail | None] | None = [None] * n if identity.tail_classes else None

    def put(self, images: npt.NDArray[np.int64], rows: Rows) -> None:
        """The labels of these images. Raises RecordError for labels of another kind than the set's."""
        if rows.value.shape[-1] != self._k or (rows.index is None) != self._full:
            raise RecordError(f"{rows.value.shape[-1]} classes per crop, not {self._k}")
        self._value[images] = rows.value
        if rows.index is not None:
            self._index[images] = rows.index
        if self._tails is not None:
            for i, tail in zip(images.tolist(), rows.tails, strict=True):
                self._tails[i] = tail

    def labels(
        self, temperature: float | None
    ) -> tuple[torch.Tensor, torch.Tensor, SoftLabels, TailBatch | None]:
        """(index [B, k], value [B, k], distributions at a temperature, tails). None: at that of the set."""
        import torch

        from slg_wds.labels import from_topk, tail_batch

        power = power_of(temperature, self._made_at)
        n, c, k = self._value.shape
        value = torch.from_numpy(self._value.reshape(n * c, k))
        if self._full:
            labels = from_topk(None, value, self._classes, rule=self._rule, power=power)
            return torch.arange(self._classes).expand(n * c, -1), value, labels, None
        index = torch.from_numpy(self._index.reshape(n * c, k))
        tails = None
        if self._tails is not None:
            tails = tail_batch(self._tails, np.repeat(np.arange(n), c), self._classes)
        used = tails if self._rule.kind == "shared_tail" else None
        labels = from_topk(index, value, self._classes, rule=self._rule, tail=used, power=power)
        return index, value, labels, tails
