"""Low-rank labels of a batch in torch: small tables and a few coefficients a crop, expanded where they are used.

Shapes: B crops, T blocks of crops that share a table, E entries of a table, R components, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slg_wds.labels.movable import Movable

if TYPE_CHECKING:
    from slg_wds.format.records.low_rank.rows import LowRankRows

# Entries are filled up to a multiple of this. Then a row is summed in the same order, to the same bits, whatever other
# rows are in its batch.
_ENTRIES_TOGETHER = 16


class LogitTables(Movable):
    """B distributions, each times its weight: row b has the logits mean[t] + coefficients[b] @ rows[t], t = block[b].

    A crop's labels are R numbers, and the tables of its image serve all its crops: so they are sent to a device, and
    made distributions there, in `expanded`.

    Args:
        classes: int64 [T, E], the class of each entry. The first entry stands for all classes that have none. It has
            the number C, and so has an entry that only fills the table up.
        others: float [T], how many classes have no entry.
        mean: float [T, E]; -inf where there is no class.
        rows: float [T, R, E]; 0 where there is no class or component.
        block: int64 [B].
        coefficients: float [B, R].
        weight: float [B].
        num_classes: C.
        power: T0 / T for labels at temperature T that were made at T0.
    """

    def __init__(
        self,
        classes: Tensor,
        others: Tensor,
        mean: Tensor,
        rows: Tensor,
        block: Tensor,
        coefficients: Tensor,
        weight: Tensor,
        num_classes: int,
        power: float = 1.0,
    ) -> None:
        self.classes, self.others, self.mean, self.rows = classes, others, mean, rows
        self.block, self.coefficients, self.weight = block, coefficients, weight
        self.num_classes, self.power = num_classes, power

    def __len__(self) -> int:
        return len(self.block)

    def __getitem__(self, crops: Tensor | slice) -> LogitTables:
        """Some of the rows, with all tables."""
        return self._with(self.block[crops], self.coefficients[crops], self.weight[crops])

    def times(self, share: Tensor | float) -> LogitTables:
        """The same with all weights times a number, or times one for each row, [B]."""
        return self._with(self.block, self.coefficients, self.weight * share)

    def at_power(self, power: float) -> LogitTables:
        """The same labels at another temperature."""
        return LogitTables(**{**vars(self), "power": power})

    def _with(self, block: Tensor, coefficients: Tensor, weight: Tensor) -> LogitTables:
        tables = self.classes, self.others, self.mean, self.rows
        return LogitTables(*tables, block, coefficients, weight, self.num_classes, self.power)

    @property
    def numel(self) -> int:
        """How many numbers the tables have."""
        return self.rows.numel() + 2 * self.mean.numel()

    @torch.no_grad()
    def expanded(self) -> tuple[Tensor, Tensor, Tensor]:
        """The rows as masses on top of an even share, as `SoftLabels` has them: index, mass [B, E - 1], even [B]."""
        probs_BE, even_B = self._probabilities()
        index = self.classes[:, 1:].index_select(0, self.block)
        mass = (probs_BE[:, 1:] - even_B[:, None]).mul_(index < self.num_classes)
        index.clamp_(max=self.num_classes - 1)
        return index, mass.mul_(self.weight[:, None]), even_B * self.weight

    @torch.no_grad()
    def dense(self) -> Tensor:
        """The rows in full, [B, C]. Small probabilities are as exact as large ones."""
        probs_BE, even_B = self._probabilities()
        index = self.classes[:, 1:].index_select(0, self.block)
        rows = even_B[:, None].repeat(1, self.num_classes + 1)  # and a column for entries that fill up
        return rows.scatter_(1, index, probs_BE[:, 1:])[:, :-1] * self.weight[:, None]

    @torch.no_grad()
    def confidence(self) -> Tensor:
        """The largest probability of each row at the temperature that labels were made at, times its weight: [B]."""
        probs_BE, even_B = self.at_power(1.0)._probabilities()
        probs_BE[:, 0] = even_B
        return probs_BE.amax(dim=1) * self.weight

    def _probabilities(self) -> tuple[Tensor, Tensor]:
        """Those of the entries, [B, E], and of each class without an entry, [B].

        In the dtype of the tables, with no matrix product: those, autocast and TF32 would round.
        """
        with torch.autocast(self.mean.device.type, enabled=False):
            others_B = self.others.index_select(0, self.block)
            probs_BE = torch.softmax(self._logits(others_B), dim=1)
            return probs_BE, probs_BE[:, 0] / others_B.clamp(min=1)

    def _logits(self, others_B: Tensor) -> Tensor:
        logits_BE = self.mean.index_select(0, self.block)
        for component in range(self.rows.shape[1]):
            rows_BE = self.rows[:, component].index_select(0, self.block)
            logits_BE.addcmul_(self.coefficients[:, component, None], rows_BE)
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
    num_classes = rows.num_classes
    fill = -rows.mean.shape[1] % _ENTRIES_TOGETHER
    pad = torch.nn.functional.pad
    coefficients = torch.from_numpy(rows.coefficients).flatten(0, 1)
    return LogitTables(
        classes=pad(torch.from_numpy(rows.classes), (0, fill), value=num_classes),
        others=torch.from_numpy(num_classes - rows.kept).to(coefficients.dtype),
        mean=pad(torch.from_numpy(rows.mean), (0, fill), value=-torch.inf),
        rows=pad(torch.from_numpy(rows.rows), (0, fill)),
        block=torch.from_numpy(rows.block).flatten(),
        coefficients=coefficients,
        weight=torch.ones(len(coefficients), dtype=coefficients.dtype),
        num_classes=num_classes,
        power=power,
    )
