"""A student's cross-entropy with sparse soft labels.

Shapes: B crops, C classes, K masses per row of labels.

With y = even + masses and rows of y that sum to 1,

    loss = log sum exp(z) - sum over c of y_c z_c        = log sum exp(z) - (masses . z[index] + even * sum z)
    gradient = softmax(z) - y

so neither needs y in full. Of size [B, C] there are the logits and one buffer: it holds exp(z - max z) after the
forward and is turned into the gradient, in place, by the backward.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from slg_wds.errors import UsageError
from slg_wds.format.recovery.temperature import checked_temperature
from slg_wds.labels.padding import both, checked_reduction, reduced
from slg_wds.labels.soft import SoftLabels


class SoftCrossEntropy(nn.Module):
    """The cross-entropy between a student's logits and soft labels, as in FKD.

    For logits z and labels y it is the mean over crops of

        - sum over c of y_c log softmax(z / student_temperature)_c

    The teacher's temperature is not given here. It is that of the labels, which the loader reads at its `temperature`.

    Args:
        temperature: an older name of student_temperature.
        reduction: "mean" over the rows that are no padding, or "none" for all [B] losses, 0 in padding.
        student_temperature: what the student's logits are divided by, above 0; 1 by default.
        t_squared: multiply the loss by student_temperature squared. Where teacher and student have one temperature, the
            gradient falls with that square; so it stays as large (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Attributes:
        temperature: the student's temperature. It may be set between steps.
    """

    def __init__(
        self,
        temperature: float | None = None,
        reduction: str = "mean",
        *,
        student_temperature: float | None = None,
        t_squared: bool = False,
    ) -> None:
        super().__init__()
        if None not in (temperature, student_temperature):
            raise UsageError(
                "temperature and student_temperature are two names of one thing; give one of them"
            )
        given = student_temperature if temperature is None else temperature
        self.temperature = 1.0 if given is None else checked_temperature(given)
        self.reduction = checked_reduction(reduction)
        self.t_squared = t_squared

    def forward(self, logits: Tensor, labels: SoftLabels | Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the loss. bf16 and fp16 logits are computed in float32.

        Args:
            logits: of the student, float [B, C].
            labels: `batch.labels`, which say what is padding, or the probabilities of all classes, float [B, C].
            mask: bool [B], `batch.mask`: False in padding, which is left out. Dense labels need it where the loader
                pads (last="pad", evaluation=True).

        Returns:
            A scalar, or [B] without reduction.

        Raises:
            UsageError: logits, labels and mask are not of the same crops and classes.
        """
        dense = isinstance(labels, Tensor)
        shape = tuple(labels.shape) if isinstance(labels, Tensor) else (len(labels), labels.num_classes)
        if tuple(logits.shape) != shape:
            hint = "give labels, or the probabilities of all classes [B, C]" if dense else None
            raise UsageError(f"logits have shape {tuple(logits.shape)}, the labels {shape}", hint=hint)
        if isinstance(labels, Tensor):
            losses = self._dense(logits, labels)
        else:
            losses, mask = self._sparse(logits, labels), both(mask, labels.mask)
        if self.t_squared:
            losses = losses * self.temperature**2
        return reduced(losses, self.reduction, mask)

    def _sparse(self, logits: Tensor, labels: SoftLabels) -> Tensor:
        labels = labels.expanded()
        losses: Tensor = _SoftCrossEntropy.apply(
            logits, labels.index, labels.mass, labels.even, self.temperature
        )
        return losses

    def _dense(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        return nn.functional.cross_entropy(logits, labels.to(logits.dtype), reduction="none")

    def extra_repr(self) -> str:
        """Return the settings, for `repr` of a module."""
        squared = ", t_squared=True" if self.t_squared else ""
        return f"temperature={self.temperature}, reduction={self.reduction!r}{squared}"


class _SoftCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, index: Tensor, mass: Tensor, even: Tensor | None, temperature: float
    ) -> Tensor:
        buffer = _exponents(logits, temperature)
        mass, even = mass.to(buffer.dtype), None if even is None else even.to(buffer.dtype)
        # From the shifted logits, so that logits far from 0 lose nothing to rounding.
        inner = (buffer.gather(1, index) * mass).sum(dim=1)
        if even is not None:
            inner += even * buffer.sum(dim=1)
        total = buffer.exp2_().sum(dim=1)
        ctx.save_for_backward(logits, index, mass, even, total)
        ctx.powers, ctx.temperature = buffer, temperature
        return (total.log2() - inner).mul_(math.log(2.0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, index, mass, even, total = ctx.saved_tensors
        # The buffer becomes the gradient. After that (retain_graph=True) it has to be made again.
        gradient, ctx.powers = ctx.powers, None
        if gradient is None:
            gradient = _exponents(logits, ctx.temperature).exp2_()
        scale = (grad / ctx.temperature).to(gradient.dtype)
        gradient.mul_((scale / total)[:, None])
        if even is not None:
            gradient.sub_((scale * even)[:, None])
        gradient.scatter_add_(1, index, mass * -scale[:, None])
        return gradient.to(logits.dtype), None, None, None, None


def _exponents(logits: Tensor, temperature: float) -> Tensor:
    """(z - each row's largest) / temperature in powers of 2, [B, C], at least float32.

    Shift, temperature and the change of base are one pass over the logits, and exp2 is faster than exp.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    factor = math.log2(math.e) / temperature
    return torch.add(logits.amax(dim=1, keepdim=True).to(dtype) * -factor, logits, alpha=factor)
