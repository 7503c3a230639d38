"""Students of embeddings: a backbone without a head, a projector to each teacher's width, and the loss.

Shapes: B crops, E numbers of the student's features, D numbers of a teacher's embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slg_wds import EmbeddingLoss, LabelSet, RelationLoss
from slg_wds.errors import LabelSetError, UsageError

# AM-RADIO's weights of both (Ranzinger et al. 2023, arXiv 2312.06709, section 3.4).
LOSSES: dict[str, Callable[[], nn.Module]] = {
    "cosine": EmbeddingLoss,
    "smooth_l1": lambda: EmbeddingLoss(cosine=0.0, smooth_l1=1.0),
    "both": lambda: EmbeddingLoss(cosine=0.9, smooth_l1=0.1),
    "relation": RelationLoss,
}


def widths_of(sets: list[LabelSet]) -> dict[str, int]:
    """Return D of each teacher's embedding, by its name, in all sets together.

    Raises:
        LabelSetError: a set holds labels.
    """
    found: dict[str, int] = {}
    for labels in sets:
        if labels.identity.embeddings is None:
            raise LabelSetError(
                "the set holds labels, and --distill embedding needs embeddings",
                url=labels.url,
                hint="make one with slg-wds generate --output embedding",
            )
        found.update({one["name"]: one["dim"] for one in labels.identity.embeddings})
    return found


class Distiller(nn.Module):
    """A student that learns embeddings: images [B, 3, S, S] -> by each teacher's name what is compared with it, [B, D].

    Args:
        backbone: gives pooled features [B, E]; it alone is the student that is kept.
        dims: D of each teacher.
        size: S.
        projects: whether each teacher has a linear projector; else it is compared with the features themselves.
        norm: how both sides are normalised before they are compared: `none`; `unit`, to unit length; `layer`, each
            crop's numbers to mean 0 and deviation 1.

    Raises:
        UsageError: the backbone gives no features [B, E].
    """

    def __init__(
        self, backbone: nn.Module, dims: Mapping[str, int], size: int, projects: bool, norm: str
    ) -> None:
        super().__init__()
        self.backbone, self.dims, self.norm = backbone, dict(dims), norm
        width = _width_of(backbone, size)
        self.projectors = nn.ModuleList(nn.Linear(width, dim) for dim in dims.values() if projects)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return what is compared with each teacher's embedding, by its name."""
        features = self.backbone(images)
        if not len(self.projectors):
            return dict.fromkeys(self.dims, self.compared(features))
        pairs = zip(self.dims, self.projectors, strict=True)
        return {name: self.compared(projector(features)) for name, projector in pairs}

    def compared(self, rows: Tensor) -> Tensor:
        """Normalise features or embeddings [B, D] as --embedding-norm says, in float32."""
        if self.norm == "unit":
            return F.normalize(rows.float(), dim=1)
        return F.layer_norm(rows.float(), rows.shape[1:]) if self.norm == "layer" else rows

    def no_weight_decay(self) -> set[str]:
        """Return the weights that the backbone names as those without decay."""
        return {f"backbone.{name}" for name in getattr(self.backbone, "no_weight_decay", set)()}

    def projector_states(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights of each projector, by its teacher's name."""
        states = [dict(one.state_dict()) for one in self.projectors]
        return dict(zip(self.dims, states, strict=True)) if states else {}

    def load_projectors(self, states: Mapping[str, dict[str, Tensor]]) -> None:
        """Load what `projector_states` returned. Raises RuntimeError if it is of other teachers."""
        if list(states) != (list(self.dims) if len(self.projectors) else []):
            raise RuntimeError(f"its projectors are of {list(states)}, not of {list(self.dims)}")
        for state, projector in zip(states.values(), self.projectors, strict=True):
            projector.load_state_dict(state)


def _width_of(backbone: nn.Module, size: int) -> int:
    """Return E, by a forward of two black images."""
    training = backbone.training
    with torch.no_grad():
        out: Any = backbone.eval()(torch.zeros(2, 3, size, size))
    backbone.train(training)
    shape = list(getattr(out, "shape", []))
    if len(shape) != 2 or shape[0] != 2:
        raise UsageError(
            f"the student gives {shape or type(out).__name__} for 2 images, not features [2, E]",
            hint="a factory of your own returns a model without a head, whose features are pooled",
        )
    return int(shape[1])


class DistillationLoss(nn.Module):
    """The mean over teachers of a loss between the student's outputs and the stored embeddings.

    Args:
        kind: one of LOSSES.
        compared: normalises embeddings as the student's outputs are, as `Distiller.compared`.
    """

    def __init__(self, kind: str, compared: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.loss, self.compared = LOSSES[kind](), compared

    def forward(self, outputs: Mapping[str, Tensor], embeddings: Mapping[str, Tensor]) -> Tensor:
        """Return a scalar; both arguments are [B, D] by the teacher's name."""
        losses = [self.loss(own, self.compared(embeddings[name])) for name, own in outputs.items()]
        return torch.stack(losses).mean()
