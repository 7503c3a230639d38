"""Low-rank labels of a batch in torch: small tables and a few coefficients a crop, expanded where they are used.

Shapes: B crops, T blocks of crops that share a table, F entries of all tables, E of the largest one, filled up to a
multiple of 16, K components of all tables, R of the one that has most, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slg_wds.labels.movable import Movable

if TYPE_CHECKING:
    from slg_wds.format.records.low_rank.rows import LowRankRows

# Entries are filled up to a multiple of this. Then a row is summed in the same order, to the same bits, whatever other
# rows are in its batch.
_ENTRIES_TOGETHER = 16


class LogitTables(Movable):
    """B distributions, each times its weight: row b has the logits mean + coefficients[b] @ rows of table block[b].

    A crop's labels are R numbers, and the tables of its image serve all its crops: so they are sent to a device, and
    made distributions there, in `expanded`. A table has r rows of n + 1 entries, of which the first stands for all
    classes that have none; these stand one after the other, as `LowRankRows` has them.

    Args:
        classes: int64 [F], the class of each entry; C for the first one of a table.
        kept: int64 [T], n of each table.
        mean: float [F]; -inf where there is no class.
        rows: float [sum of r (n + 1)].
        rank: int64 [T], r of each table.
        table: int64 [K], the table of each component.
        block: int64 [B].
        coefficients: float [B, R]; 0 beyond the components of the crop's table.
        weight: float [B].
        num_classes: C.
        entries: E.
        power: T0 / T for labels at temperature T that were made at T0.
    """

    def __init__(
        self,
        classes: Tensor,
        kept: Tensor,
        mean: Tensor,
        rows: Tensor,
        rank: Tensor,
        table: Tensor,
        block: Tensor,
        coefficients: Tensor,
        weight: Tensor,
        num_classes: int,
        entries: int,
        power: float = 1.0,
    ) -> None:
        self.classes, self.kept, self.mean, self.rows = classes, kept, mean, rows
        self.rank, self.table = rank, table
        self.block, self.coefficients, self.weight = block, coefficients, weight
        self.num_classes, self.entries, self.power = num_classes, entries, power

    def __len__(self) -> int:
        return len(self.block)

    def __getitem__(self, crops: Tensor | slice) -> LogitTables:
        """Return some of the rows, with all tables."""
        of_crops = {name: getattr(self, name)[crops] for name in ("block", "coefficients", "weight")}
        return self._with(**of_crops)

    def times(self, share: Tensor | float) -> LogitTables:
        """Return the same with all weights times a number, or times one for each row, [B]."""
        return self._with(weight=self.weight * share)

    def at_power(self, power: float) -> LogitTables:
        """Return the same labels at another temperature."""
        return self._with(power=power)

    def _with(self, **changed: Any) -> LogitTables:
        return LogitTables(**{**vars(self), **changed})

    @property
    def numel(self) -> int:
        """How many numbers the tables have."""
        return self.rows.numel() + 2 * self.mean.numel()

    @torch.no_grad()
    def expanded(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the rows as `SoftLabels` has them: index, mass and even.

        They are masses on top of an even share, [B, E - 1]. Where a table has nearly all classes, rows in full take
        less time: then they are masses of all classes, [B, C], and no even share.
        """
        if 2 * self.entries > self.num_classes:
            rows = self.dense()
            return torch.arange(self.num_classes, device=rows.device).expand(len(rows), -1), rows, None
        probs_BE, even_B = self._probabilities()
        index = self._index(self.num_classes)
        mass = (probs_BE[:, 1:] - even_B[:, None]).mul_(index < self.num_classes)
        index.clamp_(max=self.num_classes - 1)
        return index, mass.mul_(self.weight[:, None]), even_B * self.weight

    @torch.no_grad()
    def dense(self) -> Tensor:
        """Return the rows in full, [B, C]. Small probabilities are as exact as large ones."""
        probs_BE, even_B = self._probabilities()
        rows = even_B[:, None].repeat(1, self.num_classes + 1)  # and a column for entries that fill up
        index = self._index(self.num_classes)
        return rows.scatter_(1, index, probs_BE[:, 1:])[:, :-1] * self.weight[:, None]

    @torch.no_grad()
    def confidence(self) -> Tensor:
        """Return the largest probability of each row at the labels' own temperature, times its weight: [B]."""
        probs_BE, even_B = self.at_power(1.0)._probabilities()
        probs_BE[:, 0] = even_B
        return probs_BE.amax(dim=1) * self.weight

    def _lines(self, numbers: Tensor, sizes: Tensor, fill: float) -> Tensor:
        """Return lines that stand one after the other, of `sizes` numbers each, as rows [lines, E], filled up."""
        before = torch.arange(len(sizes), device=sizes.device) * self.entries - (sizes.cumsum(0) - sizes)
        at = torch.repeat_interleave(before, sizes, output_size=len(numbers))
        at += torch.arange(len(numbers), device=at.device)
        return (
            numbers.new_full((len(sizes) * self.entries,), fill)
            .scatter_(0, at, numbers)
            .view(len(sizes), self.entries)
        )

    def _index(self, fill: int) -> Tensor:
        """Return the class of each entry but the first, int64 [B, E - 1]; `fill` where there is none."""
        return self._lines(self.classes, self.kept + 1, fill)[:, 1:].index_select(0, self.block)

    def _probabilities(self) -> tuple[Tensor, Tensor]:
        """Return those of the entries, [B, E], and of each class without an entry, [B].

        In the dtype of the tables, with no matrix product: those, autocast and TF32 would round.
        """
        others_B = (self.num_classes - self.kept).to(self.mean.dtype).index_select(0, self.block)
        probs_BE = torch.softmax(self._logits(others_B), dim=1)
        return probs_BE, probs_BE[:, 0] / others_B.clamp(min=1)

    def _logits(self, others_B: Tensor) -> Tensor:
        rows_KE = self._lines(self.rows, (self.kept + 1).index_select(0, self.table), 0.0)
        logits_BE = self._lines(self.mean, self.kept + 1, -torch.inf).index_select(0, self.block)
        first_B = (self.rank.cumsum(0) - self.rank).index_select(0, self.block)
        for component in range(self.coefficients.shape[1] if len(rows_KE) else 0):
            # Where a table has no such component, the coefficient is 0, and the row that of another.
            at_B = (first_B + component).clamp_(max=len(rows_KE) - 1)
            logits_BE.addcmul_(self.coefficients[:, component, None], rows_KE.index_select(0, at_B))
        if self.power != 1.0:
            # The logit of each of the other classes is that of their entry, less the logarithm of their number.
            of_each_B = others_B.clamp(min=1).log()
            logits_BE[:, 0].sub_(of_each_B)
            logits_BE.mul_(self.power)
            logits_BE[:, 0].add_(of_each_B)
        return logits_BE


def logit_tables(rows: LowRankRows, power: float = 1.0) -> LogitTables:
    """Make tables of decoded low-rank labels.

    Args:
        rows: of n images, c crops of each: B = n * c, image after image.
        power: see `LogitTables`.
    """
    entries = 1 + int(rows.kept.max(initial=0))
    rank, coefficients = torch.from_numpy(rows.rank), torch.from_numpy(rows.coefficients).flatten(0, 1)
    return LogitTables(
        classes=torch.from_numpy(rows.classes),
        kept=torch.from_numpy(rows.kept),
        mean=torch.from_numpy(rows.mean),
        rows=torch.from_numpy(rows.rows),
        rank=rank,
        table=torch.repeat_interleave(rank),
        block=torch.from_numpy(rows.block).flatten(),
        coefficients=coefficients,
        weight=torch.ones(len(coefficients), dtype=coefficients.dtype),
        num_classes=rows.num_classes,
        entries=-(-entries // _ENTRIES_TOGETHER) * _ENTRIES_TOGETHER,
        power=power,
    )
