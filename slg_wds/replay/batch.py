"""What the loader yields.

Shapes: B crops of this rank, k classes stored of each crop, C classes, S pixels a side, D numbers of an embedding.
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
    """A batch of B crops with what the teachers said of them. The crops of one image follow each other.

    `to(device)` and `pin_memory()` move all tensors of a batch.

    Attributes:
        images: the pixels, uint8 [B, 3, S, S], channels_last. From `loader.to(...)` they are normalised, of its dtype.
        labels: the distributions over C classes, as SoftCrossEntropy takes them: recovered by the loader's rule, at its
            temperature, averaged over its sets. Padding has even distributions, which that loss leaves out. None if
            the set holds embeddings.
        embedding: float32 [B, D] of each teacher, by the teacher's name, with zeros in padding. Empty if the set holds
            labels.
        target: int64 [B], the image's hard label, -1 for none. It is a class of the labels only where
            `LabelSet.targets_are_classes` says so.
        target2: int64 [B], the target of the image that is mixed into the view, -1 for none. None if the set has no
            mixed views.
        lam: float32 [B], the weight of `target` in a mixed view, in 0..1; that of `target2` is 1 - lam. It is 1 where
            nothing is mixed in. None if the set has no mixed views. `labels` need no weights: the teacher saw the mix.
        mask: bool [B], False in padding, which only the last batch can have. Whatever does not go by `labels` needs it:
            `EmbeddingLoss` and dense labels (`mask=batch.mask`), and counts such as an accuracy.
        weight: what to multiply this process's mean loss by. It is 1 except in a padded batch of which the processes
            have unequal parts. DDP takes the mean over processes, so `(batch.weight * loss).backward()` then gives the
            gradient of the mean over all crops.
        key: B keys, those of the images.
        crop: int64 [B], the number of the crop in its record, -1 in padding.
        index: int64 [B, k], the classes that are stored of each crop, the most probable first; of `full` labels all, in
            class order. Columns of several sets stand side by side. Low-rank labels store no single classes: k is 0.
        value: float32 [B, k], the probabilities of these classes, as stored.
        tail: the shared tails; None if none are stored, and for several sets.
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
