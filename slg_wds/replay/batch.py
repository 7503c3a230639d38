"""What the loader yields.

Shapes: B crops of this rank, k classes stored per crop (the sum of the sets' where there are several), S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slg_wds.labels.movable import Movable

if TYPE_CHECKING:
    import torch

    from slg_wds.labels import SoftLabels, TailBatch


@dataclass(eq=False)
class Batch(Movable):
    """B crops; those of an image follow each other. `to(device)` and `pin_memory()` move all its tensors.

    Attributes:
        images: uint8 [B, 3, S, S], channels_last (normalised, of the dtype asked for, from `loader.to`).
        index: int64 [B, k]. value: float32 [B, k], as stored. Those of several sets lie side by side. Low-rank labels
            store no classes and values of single crops: their k is 0.
        tail: the shared tails, None where none are stored or where there are several sets.
        labels: the distributions under the rule of recovery, at the temperature asked for, averaged over the sets, for
            SoftCrossEntropy. None if the set holds embeddings. Padding has even ones, which that loss leaves out.
        target: int64 [B], -1 for none. Classes of the labels only where `LabelSet.targets_are_classes` says so.
        key: [B].
        crop: int64 [B], the crop's number in its record, -1 in padding.
        mask: bool [B], False in padding, which only the last batch has. What uses other things than `labels` needs it:
            `EmbeddingLoss` and dense labels (`mask=batch.mask`), and whatever counts, such as an accuracy.
        weight: what the mean loss of this process counts. It is 1, but in a padded batch of which several processes
            have unequal parts. `(batch.weight * loss).backward()` gives DDP, which takes the mean over processes, the
            gradient of the mean over all crops of the batch.
        embedding: of a set of embeddings, float32 [B, D] of each teacher by its name, zeros in padding; else empty.
        target2: int64 [B], the target of the image that is mixed into the view, -1 for none; None if the set has no
            mixed views.
        lam: float32 [B], the weight of `target` in a mixed view, in 0..1: 1 - lam is that of `target2`. 1 where nothing
            is mixed in; None as target2 is. The teacher saw the mixed view, so its labels need no weights.
    """

    images: torch.Tensor
    index: torch.Tensor
    value: torch.Tensor
    tail: TailBatch | None
    labels: SoftLabels | None
    target: torch.Tensor
    key: list[str]
    crop: torch.Tensor
    mask: torch.Tensor
    embedding: dict[str, torch.Tensor] = field(default_factory=dict)
    target2: torch.Tensor | None = None
    lam: torch.Tensor | None = None
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.target)

    def __repr__(self) -> str:
        kind, shape = str(self.images.dtype).removeprefix("torch."), list(self.images.shape)
        widths = {name: list(one.shape) for name, one in self.embedding.items()}
        answers = f"embeddings {widths}" if widths else f"labels {list(self.index.shape)}"
        if self.labels is not None and not self.index.shape[1]:
            answers = f"low-rank labels of {self.labels.num_classes} classes"
        return f"Batch({len(self)} crops: images {kind} {shape}, {answers}, on {self.images.device})"


def embedding_answers(embedding: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Return the fields of a batch that has embeddings in place of labels: no classes, no distributions.

    Args:
        embedding: float32 [B, D] by name.
    """
    import torch

    size = (len(next(iter(embedding.values()))), 0)
    index, value = torch.zeros(size, dtype=torch.int64), torch.zeros(size)
    return {"index": index, "value": value, "tail": None, "labels": None, "embedding": embedding}
