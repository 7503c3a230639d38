"""What losses do with the rows of padding, without asking the device for a number."""

from __future__ import annotations

import torch
from torch import Tensor

from slg_wds.errors import UsageError


def checked_reduction(reduction: str) -> str:
    """Return the reduction. Raises UsageError if it is none that `reduced` knows."""
    if reduction not in ("mean", "none"):
        raise UsageError(f"the reduction is mean or none, not {reduction!r}")
    return reduction


def checked_mask(mask: Tensor, rows: int) -> Tensor:
    """Return the mask of a batch. Raises UsageError if it is not bool [rows]."""
    if mask.dtype != torch.bool or tuple(mask.shape) != (rows,):
        kind = str(mask.dtype).removeprefix("torch.")
        raise UsageError(
            f"the mask is {kind} {list(mask.shape)} for {rows} rows", hint=f"give batch.mask, bool [{rows}]"
        )
    return mask


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Return the mask of the rows that two masks leave, bool [B]; None leaves all of them."""
    return one if other is None else other if one is None else one & other


def reduced(losses: Tensor, reduction: str, mask: Tensor | None) -> Tensor:
    """Return the losses of rows, or their mean; where all rows are padding, it is 0.

    Args:
        losses: float [B].
        reduction: mean, or none.
        mask: bool [B], False in padding, which is 0 in the result and is not counted; None: no row is.
    """
    if mask is None:
        return losses.mean() if reduction == "mean" else losses
    losses = losses.masked_fill(~checked_mask(mask, len(losses)), 0.0)
    return losses if reduction == "none" else losses.sum() / mask.sum().clamp(min=1)
