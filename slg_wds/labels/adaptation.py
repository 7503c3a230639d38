"""Label adaptation at read time: crops that the teacher is unsure of learn from the image's own class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slg_wds.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from slg_wds.labels.soft import SoftLabels


@dataclass(frozen=True)
class LabelAdaptation:
    """What FerKD does with crops of low confidence: their soft label gives way to the softened hard one.

    A crop whose largest stored probability p is below `below` gets, of soft label y, target t and C classes,

        y' = (1 - share) y + share ((1 - smoothing) onehot(t) + smoothing / C)

    and every other crop keeps y. With share 1 this is the calibration of "FerKD: Surgical Label Adaptation for
    Efficient Distillation" (Zhiqiang Shen, ICCV 2023, arXiv 2312.17473), as its abstract states it: less confident
    regions are calibrated by softened hard ground-truth labels. Its other half, the choice of regions by how hard they
    are, is the loader's crop_filter=("confidence", low, high), with low <= below <= high. That a hard label is softened
    by an even spread (Szegedy et al., 2016), and a share below 1, are ours; the bounds are for you to choose.

    Attributes:
        below: a crop changes whose confidence p is below this, in 0..1. Of several sets the weighted mean of p counts.
        smoothing: how much of the hard label is spread evenly, in 0..1.
        share: how much of the soft label gives way, in 0..1.
    """

    below: float
    smoothing: float = 0.1
    share: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise UsageError(f"label adaptation with {name} {value}", hint="it is from 0 to 1")


def adapted(
    labels: SoftLabels,
    target: Tensor,
    confidence: Tensor,
    by: LabelAdaptation,
    target2: Tensor | None = None,
    lam: Tensor | None = None,
) -> SoftLabels:
    """Return B distributions after adaptation.

    Args:
        labels: before it.
        target: int64 [B], below C; rows of -1 stay as they are.
        confidence: float [B], the largest probability of each.
        by: what is done.
        target2: int64 [B], the second targets of mixed views, as `Batch` has them: onehot(t) is then
            lam onehot(target) + (1 - lam) onehot(target2). Rows that lack a target of weight above 0 stay.
        lam: float32 [B].
    """
    import torch

    from slg_wds.labels.soft import SoftLabels

    C, dtype = labels.num_classes, labels.mass.dtype
    known_B = target >= 0
    if target2 is not None and lam is not None:
        known_B = known_B & ((target2 >= 0) | (lam == 1))
    share_B = ((confidence < by.below) & known_B).to(dtype) * by.share
    kept_B = 1.0 - share_B
    even_B = share_B * (by.smoothing / C)
    if labels.even is not None:
        even_B = even_B + labels.even * kept_B
    hard_B = share_B * (1.0 - by.smoothing)
    targets, hard = [target], [hard_B]
    if target2 is not None and lam is not None:
        targets, hard = [target, target2], [hard_B * lam, hard_B * (1 - lam)]
    index = torch.cat([labels.index, torch.stack(targets, dim=1).clamp(min=0)], dim=1)
    mass = torch.cat([labels.mass * kept_B[:, None], torch.stack(hard, dim=1)], dim=1)
    tables = tuple(table.times(kept_B) for table in labels.tables)
    return SoftLabels(index, mass, even_B, C, tables, labels.mask)
