"""Sparse distributions in torch, an even share of every class and a few masses on top: built, mixed, made dense.

Shapes: B crops, k classes stored per crop, N <= k classes that the rule reads, K masses per row, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from slg_wds.errors import UsageError
from slg_wds.format.recovery.label_types import LabelType
from slg_wds.format.recovery.rules import StoredColumns
from slg_wds.format.recovery.temperature import LEAST_LEFT
from slg_wds.labels.logit_tables import LogitTables
from slg_wds.labels.movable import Movable
from slg_wds.labels.padding import both
from slg_wds.labels.reduce import topk
from slg_wds.labels.shares import shares
from slg_wds.labels.tails import TailBatch, spread_tail


class SoftLabels(Movable):
    """B distributions over C classes, stored sparsely. `dense()` gives all [B, C] probabilities.

    In row b, the probability of class c is even[b] plus the masses of row b whose index is c.

    Args:
        index: int64 [B, K], the classes of the masses. Where a class occurs several times, its masses add up.
        mass: float [B, K]; a mass may be negative.
        even: float [B], what every class has; None for 0.
        num_classes: C.
        tables: low-rank labels of the same rows, which are added to the others; see `expanded`.
        mask: bool [B], False in rows of padding, which SoftCrossEntropy leaves out; None if no row is padding.
    """

    def __init__(
        self,
        index: Tensor,
        mass: Tensor,
        even: Tensor | None,
        num_classes: int,
        tables: tuple[LogitTables, ...] = (),
        mask: Tensor | None = None,
    ) -> None:
        self.index, self.mass, self.even, self.num_classes = index, mass, even, num_classes
        self.tables, self.mask = tables, mask

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        low_rank = ", low-rank" if self.tables else ""
        return f"SoftLabels({len(self)} distributions over {self.num_classes} classes{low_rank}, on {self.mass.device})"

    def __getitem__(self, rows: Tensor | slice) -> SoftLabels:
        """Return some of the rows. Mixup then needs nothing dense: mix([y, y[perm]], [lam, 1 - lam])."""
        even = None if self.even is None else self.even[rows]
        tables = tuple(table[rows] for table in self.tables)
        mask = None if self.mask is None else self.mask[rows]
        return SoftLabels(self.index[rows], self.mass[rows], even, self.num_classes, tables, mask)

    def expanded(self) -> SoftLabels:
        """Return the same without tables: low-rank labels become masses, one for each entry of their tables."""
        if not self.tables:
            return self
        parts = [table.expanded() for table in self.tables]
        if len(parts) == 1 and self.even is None and not self.index.shape[1]:
            return SoftLabels(*parts[0], self.num_classes, mask=self.mask)
        index = torch.cat([self.index, *(part[0] for part in parts)], dim=1)
        mass = torch.cat([self.mass, *(part[1] for part in parts)], dim=1)
        evens = [even for even in (self.even, *(part[2] for part in parts)) if even is not None]
        even = torch.stack(evens).sum(dim=0) if evens else None
        return SoftLabels(index, mass, even, self.num_classes, mask=self.mask)

    def dense(self) -> Tensor:
        """Return the probabilities of all classes, [B, C] of the dtype of `mass`; none is negative."""
        shape = (len(self), self.num_classes)
        even = self.mass.new_zeros(()) if self.even is None else self.even[:, None]
        rows = even.expand(shape).clone().scatter_add_(1, self.index, self.mass)
        # even + (0 - even) is 0, but in a mixture the rounding of several such may leave -1e-12.
        rows = rows.scatter_(1, self.index, rows.gather(1, self.index).clamp_(min=0.0))
        for table in self.tables:
            rows += table.dense()
        return rows


@torch.no_grad()
def from_topk(
    index: Tensor | None,
    value: Tensor,
    num_classes: int,
    *,
    rule: str | LabelType | None = None,
    tail: TailBatch | None = None,
    dtype: torch.dtype = torch.float32,
    power: float = 1.0,
) -> SoftLabels:
    """Recover distributions from what is stored of each crop, as slg_wds.labels.distribution defines them.

    Labels to train with must not be made under torch.inference_mode: autograd cannot keep such tensors.

    Args:
        index: int64 [B, k], the stored classes of each crop, the most probable first; None for full labels.
        value: float [B, k], their probabilities; of full labels [B, C], in class order.
        num_classes: C.
        rule: the rule of recovery, a label type such as "marginal_smoothing_k5"; None uses all that is given.
        tail: the images' shared tails, from `slg_wds.labels.tail_batch`; None if there are none.
        dtype: of the result.
        power: what recovered probabilities are raised to before they are divided by their sum. To read labels that were
            made at temperature T0 at another one, T, give T0 / T. All is then computed in float64, since a power below
            1 makes the rounding error of a small probability large.

    Raises:
        UsageError: shapes do not fit, or the rule is unknown.
        RuleError: the columns cannot give the rule.
    """
    full = index is None
    _check_shapes(index, value, num_classes, tail)
    given = StoredColumns(
        k=value.shape[1], num_classes=num_classes, full=full, tail=tail is not None and not full
    )
    asked = given.resolve(rule)
    if index is None:
        index, value = _of_full(value, asked, num_classes)
    n = asked.k or (num_classes if asked.kind == "full" else 1)
    index, value = index[:, :n], value[:, :n].to(dtype if power == 1.0 else torch.float64)
    if asked.kind == "hard":
        labels = SoftLabels(index, torch.ones_like(value), None, num_classes)
    elif asked.kind == "marginal_renorm" or n == num_classes:
        labels = SoftLabels(index, _renormalised(value, power), None, num_classes)
    else:
        used = tail if asked.kind == "shared_tail" else None
        labels = _spread(index, value, num_classes, used, power)
    if power == 1.0:
        return labels
    return labels.changed(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def _check_shapes(index: Tensor | None, value: Tensor, num_classes: int, tail: TailBatch | None) -> None:
    k = num_classes if index is None else value.shape[-1]
    if value.dim() != 2 or value.shape[1] != k or not 1 <= k <= num_classes:
        raise UsageError(f"values of shape {tuple(value.shape)} do not fit {num_classes} classes")
    if index is not None and index.shape != value.shape:
        raise UsageError(f"index {tuple(index.shape)} and value {tuple(value.shape)} differ in shape")
    if tail is not None and len(tail.row) != len(value):
        raise UsageError(f"the tail is for {len(tail.row)} crops, but there are {len(value)}")


def _of_full(value: Tensor, asked: LabelType, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the columns that full labels would have had for another rule."""
    if asked.kind == "full":
        return torch.arange(num_classes, device=value.device).expand(len(value), -1), value
    return topk(value.float(), asked.k or 1)


def _renormalised(value: Tensor, power: float) -> Tensor:
    if power != 1.0:
        most = value.amax(dim=1, keepdim=True)
        value = torch.where(most == 0, value, (value / most) ** power)
    total = value.sum(dim=1, keepdim=True)
    # A sum of 0 happens only where rounding took all there was: then all share evenly.
    return torch.where(total == 0, 1.0 / value.shape[1], value / torch.where(total == 0, 1.0, total))


def _spread(
    index: Tensor, value: Tensor, num_classes: int, tail: TailBatch | None, power: float
) -> SoftLabels:
    """Return the top-k as they are, what they leave over the other classes: evenly, or as the shared tails have it."""
    total = value.sum(dim=1)
    left = (1.0 - total).clamp_(min=0.0)
    if power != 1.0:
        left = torch.where(left > LEAST_LEFT, left, 0.0)
    value = value / total.clamp(min=1.0)[:, None]  # rounded values can sum to more than 1
    others = torch.full_like(left, num_classes - value.shape[1])
    live: Tensor | None = None  # all of the classes named
    if tail is None or tail.classes.shape[1] == 0:
        named, even = value, left / others
    else:
        even, classes, probs, spread = spread_tail(left, index, tail, num_classes)
        index, named = torch.cat([index, classes], dim=1), torch.cat([value, probs], dim=1)
        others, live = others - spread.sum(dim=1), torch.cat([torch.ones_like(value), spread], dim=1)
    if power != 1.0:
        named, even = _powered(named, even, others, power)
    share = even[:, None] if live is None else live * even[:, None]
    return SoftLabels(index, named - share, even, num_classes)


def _powered(named: Tensor, even: Tensor, others: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Raise the probabilities of named classes and of each of the others to a power; divide by the new sums."""
    most = torch.maximum(named.amax(dim=1), even)
    named, even = (named / most[:, None]) ** power, (even / most) ** power
    total = named.sum(dim=1) + even * others
    return named / total[:, None], even / total


@torch.no_grad()
def mix(labels: Sequence[SoftLabels], weights: Sequence[float] | None = None) -> SoftLabels:
    """Average distributions row by row. A row of the result is padding if it is padding in any of them.

    Args:
        labels: distributions of the same rows and classes.
        weights: one for each, at least 0 with a sum above 0, by which they are divided; None: all are equal.

    Returns:
        The averages. Their K is the sum of the K of `labels`.

    Raises:
        UsageError: there are no labels, they are of different rows or classes, or the weights cannot be.
    """
    if not labels:
        raise UsageError("0 sets of labels cannot be mixed")
    parts = shares(weights, len(labels), "distribution")
    if len({(len(one), one.num_classes) for one in labels}) != 1:
        raise UsageError("only labels of the same number of rows and classes can be mixed")
    index = torch.cat([one.index for one in labels], dim=1)
    mass = torch.cat([one.mass * share for one, share in zip(labels, parts, strict=True)], dim=1)
    evens = [one.even * share for one, share in zip(labels, parts, strict=True) if one.even is not None]
    even = torch.stack(evens).sum(dim=0) if evens else None
    tables = [table.times(share) for one, share in zip(labels, parts, strict=True) for table in one.tables]
    mask = reduce(both, [one.mask for one in labels])
    return SoftLabels(index, mass, even, labels[0].num_classes, tuple(tables), mask)


def from_tables(tables: LogitTables, rule: LabelType, dtype: torch.dtype = torch.float32) -> SoftLabels:
    """Return the distributions of low-rank labels under a rule of recovery.

    As all of them, they stay tables where these are smaller than the rows in full. Where they are not (one crop an
    image), and for the rules that keep only the likeliest classes, the rows are made here.

    Args:
        tables: of B crops, with the power that brings them to the temperature wanted.
        rule: any but shared_tail.
        dtype: of the result.
    """
    C, whole = tables.num_classes, rule.kind in ("lowrank", "full")
    if whole and tables.numel <= len(tables) * C:
        none = torch.zeros((len(tables), 0), dtype=dtype, device=tables.mean.device)
        return SoftLabels(none.long(), none, None, C, (tables,))
    if whole:
        rows = tables.dense().to(dtype)
        return SoftLabels(torch.arange(C, device=rows.device).expand(len(rows), -1), rows, None, C)
    return from_topk(None, tables.at_power(1.0).dense(), C, rule=rule, dtype=dtype, power=tables.power)


def recover(
    index: Tensor | None,
    value: Tensor,
    num_classes: int,
    *,
    rule: str | LabelType | None = None,
    tail: TailBatch | None = None,
    dtype: torch.dtype = torch.float32,
    power: float = 1.0,
) -> Tensor:
    """Recover the probabilities of all classes from what is stored of each crop, such as a batch's index and value.

    Args:
        index: int64 [B, k], the stored classes of each crop, the most probable first; None for full labels.
        value: float [B, k], their probabilities; of full labels [B, C], in class order.
        num_classes: C.
        rule: the rule of recovery, a label type such as "marginal_smoothing_k5"; None uses all that is given.
        tail: the images' shared tails, such as a batch's `tail`; None if there are none.
        dtype: of the result.
        power: T0 / T reads labels that were made at temperature T0 at temperature T.

    Returns:
        [B, C] on the device of `value`; each row sums to 1.

    Raises:
        UsageError: shapes do not fit, or the rule is unknown.
        RuleError: what is stored cannot give the rule.
    """
    return from_topk(index, value, num_classes, rule=rule, tail=tail, dtype=dtype, power=power).dense()
