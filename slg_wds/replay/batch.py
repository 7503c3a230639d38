"""What the loader yields.

Shapes: B crops of this rank, k classes stored per crop (the sum of the sets' where there are several), S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from slg_wds.labels import SoftLabels, TailBatch


@dataclass(frozen=True, eq=False)
class Batch:
    """B crops; those of an image follow each other.

    images: uint8 [B, 3, S, S], channels_last (normalised, of the dtype asked for, from `loader.to`).
    index: int64 [B, k]; value: float32 [B, k], as stored, those of several sets side by side.
    tail: the shared tails, None where none are stored or where there are several sets.
    labels: the distributions under the rule of recovery, averaged over the sets, for SoftCrossEntropy.
    target: int64 [B], -1 for none. key: [B]. crop: int64 [B], the crop's number in its record, -1 in padding.
    mask: bool [B], False in padding, which only the last batch has.
    """

    images: torch.Tensor
    index: torch.Tensor
    value: torch.Tensor
    tail: TailBatch | None
    labels: SoftLabels
    target: torch.Tensor
    key: list[str]
    crop: torch.Tensor
    mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.target)
