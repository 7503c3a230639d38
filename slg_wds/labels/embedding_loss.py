"""Losses between a student's features and a teacher's embeddings of the same crops.

Shapes: B crops, E numbers of a student's features, D numbers of a teacher's embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slg_wds.errors import UsageError
from slg_wds.labels.padding import checked_mask, checked_reduction, reduced

SHORTEST = 1e-12  # lengths below it are not divided by


class EmbeddingLoss(nn.Module):
    """How far a student's features, projected, are from a teacher's embeddings of the same crops.

    The loss is the mean over crops of

        cosine * (1 - cos(p, t)) + smooth_l1 * mean(SmoothL1(p - t))

    p is the projected feature of a crop, t the teacher's embedding. The cosine alone, the default, leaves the length of
    features free. Where the length matters too, AM-RADIO (Ranzinger et al. 2023, arXiv 2312.06709, section 3.4) weights
    cosine and smooth L1 by 0.9 and 0.1. The cosine of two zero vectors is 1, that of a zero vector and another one 0.

    Args:
        projector: maps features [B, E] to [B, D], such as `nn.Linear(E, D)`; its parameters are this module's, so give
            them to the optimizer. None: E is D.
        cosine: weight of the cosine distance, at least 0.
        smooth_l1: weight of the smooth L1, at least 0.
        beta: difference, above 0, from which on smooth L1 is linear; see `torch.nn.SmoothL1Loss`.
        reduction: "mean" over the rows that are no padding, or "none" for all [B] losses, 0 in padding.
    """

    def __init__(
        self,
        projector: nn.Module | None = None,
        *,
        cosine: float = 1.0,
        smooth_l1: float = 0.0,
        beta: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if min(cosine, smooth_l1) < 0 or not cosine + smooth_l1 > 0 or not beta > 0:
            raise UsageError(
                f"weights cosine {cosine} and smooth_l1 {smooth_l1} are not at least 0 and one above it, or beta "
                f"{beta} is not above 0"
            )
        self.reduction = checked_reduction(reduction)
        self.projector = projector
        self.cosine, self.smooth_l1, self.beta = cosine, smooth_l1, beta

    def forward(self, features: Tensor, embedding: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss. bf16 and fp16 features are computed in float32.

        Args:
            features: of the student, float [B, E].
            embedding: of the teacher, `batch.embedding[name]`, float [B, D].
            mask: bool [B], `batch.mask`: False in padding, which is left out. It is needed where the loader pads
                (last="pad", evaluation=True).

        Returns:
            A scalar, or [B] without reduction.

        Raises:
            UsageError: the projected features have not the shape of the embedding, or the mask not that of the rows.
        """
        projected = features if self.projector is None else self.projector(features)
        if projected.ndim != 2 or projected.shape != embedding.shape:
            raise UsageError(
                f"features of shape {list(projected.shape)} for embeddings of shape {list(embedding.shape)}",
                hint="give a projector that maps the student's features to the teacher's width",
            )
        own, theirs = _wide(projected), _wide(embedding)
        losses = own.new_zeros(len(own))
        if self.cosine:
            losses = losses + self.cosine * (1 - _cosines(own, theirs))
        if self.smooth_l1:
            apart = F.smooth_l1_loss(own, theirs, beta=self.beta, reduction="none").mean(dim=1)
            losses = losses + self.smooth_l1 * apart
        return reduced(losses, self.reduction, mask)

    def extra_repr(self) -> str:
        """Return the settings, for `repr` of a module."""
        return f"cosine={self.cosine}, smooth_l1={self.smooth_l1}, beta={self.beta}"


class RelationLoss(nn.Module):
    """How differently student and teacher see which crops of a batch are alike. It needs no projector.

    The loss is || G(student) - G(teacher) ||^2 / B^2, where G is Q Q^T with its rows brought to unit length, and Q are
    the features of a batch, [B, E], or its embeddings, [B, D]. It is the similarity-preserving loss of Tung and Mori
    (2019, arXiv 1907.09682, equations 1 to 4) for one layer.
    """

    def forward(self, features: Tensor, embedding: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss. bf16 and fp16 features are computed in float32.

        Args:
            features: of the student, float [B, E].
            embedding: of the teacher, `batch.embedding[name]`, float [B, D].
            mask: bool [B], `batch.mask`: False in padding, which is left out, so that B is the number of other rows. It
                is needed where the loader pads (last="pad", evaluation=True).

        Returns:
            A scalar.

        Raises:
            UsageError: the two are not of the same crops, or the mask is of others.
        """
        if features.ndim != 2 or embedding.ndim != 2 or len(features) != len(embedding) or not len(features):
            raise UsageError(
                f"features of shape {list(features.shape)} for embeddings of shape {list(embedding.shape)}",
                hint="give both for the same crops, as [B, ...]",
            )
        own, theirs = _wide(features), _wide(embedding)
        if mask is None:
            return (_alike(own) - _alike(theirs)).square().mean()
        # A row of zeros is alike to no row. So it changes the length of no row of the matrix, and its own row is 0.
        padding_B1 = ~checked_mask(mask, len(own))[:, None]
        apart = _alike(own.masked_fill(padding_B1, 0.0)) - _alike(theirs.masked_fill(padding_B1, 0.0))
        return apart.square().sum() / mask.sum().clamp(min=1).square()


def _wide(numbers: Tensor) -> Tensor:
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


def _cosines(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine between the rows of [B, D], by the definition for zero vectors that `EmbeddingLoss` states."""
    cosines = (F.normalize(one, dim=1, eps=SHORTEST) * F.normalize(other, dim=1, eps=SHORTEST)).sum(dim=1)
    both_zero = ~(one.any(dim=1) | other.any(dim=1))
    return torch.where(both_zero, torch.ones_like(cosines), cosines)


def _alike(rows: Tensor) -> Tensor:
    """Return the products of all pairs of rows, [B, B], with rows of unit length."""
    # Under autocast a product would be rounded to bf16, which is coarser than what the student is to learn.
    with torch.autocast(rows.device.type, enabled=False):
        return F.normalize(rows @ rows.T, dim=1, eps=SHORTEST)
