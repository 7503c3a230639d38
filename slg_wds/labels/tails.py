"""The shared tails of a batch's images.

Shapes: B crops, n images, m classes kept of a tail, k classes stored per crop, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slg_wds.format.records.tail import SHARES, Tail
from slg_wds.labels.movable import Movable

_EVEN = Tail(np.zeros(0, np.int64), np.zeros(0, np.uint8), 0.0, 0.0)


class TailBatch(Movable):
    """One tail for each image of a batch, and which of them each crop uses.

    Only the proportions within an image matter: tail_batch scales each by the power of 2 that brings its largest share
    to [0.5, 1).

    Args:
        classes: int64 [n, m], ascending, shorter ones filled up with C at the end.
        probs: float32 [n, m], 0 there.
        rest: float32 [n], the share of each class that is not kept.
        row: int64 [B], each crop's image.
        ragged: False promises that none was filled up, which saves the looking.
    """

    def __init__(
        self, classes: Tensor, probs: Tensor, rest: Tensor, row: Tensor, ragged: bool = True
    ) -> None:
        self.classes, self.probs, self.rest, self.row, self.ragged = classes, probs, rest, row, ragged


def tail_batch(tails: Sequence[Any], row: Any, num_classes: int) -> TailBatch:
    """Return the tails of n images as a batch; None stands for an even one. `row`, [B], is the image of each crop."""
    given = [_EVEN if tail is None else tail for tail in tails]
    lengths = np.array([len(tail.classes) for tail in given], np.int64)
    shape = (len(given), int(lengths.max(initial=0)))
    classes, probs = np.full(shape, num_classes, np.int64), np.zeros(shape, np.float64)
    kept = np.arange(shape[1]) < lengths[:, None]
    classes[kept] = np.concatenate([tail.classes for tail in given])
    shares = SHARES[np.concatenate([tail.codes for tail in given])]
    probs[kept] = (shares * np.repeat([tail.scale for tail in given], lengths)).astype(np.float32)
    rest = np.array([tail.rest for tail in given], np.float64)
    # A tail may be as thin as a float32 can be (a very sure teacher); scaled, no quotient of its parts overflows.
    exponent = np.frexp(np.maximum(probs.max(axis=1, initial=0.0), rest))[1]
    return TailBatch(
        torch.from_numpy(classes),
        torch.from_numpy(np.ldexp(probs, -exponent[:, None]).astype(np.float32)),
        torch.from_numpy(np.ldexp(rest, -exponent).astype(np.float32)),
        torch.as_tensor(row, dtype=torch.int64),
        ragged=not kept.all(),
    )


def spread_tail(
    left_B: Tensor, index_Bk: Tensor, tail: TailBatch, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spread each crop's left probability over the classes outside its top-k, in the shape of its image's tail.

    Nothing is larger than what is spread, so nothing cancels, however thin the tail is.

    Args:
        left_B: float [B].
        index_Bk: int64 [B, k], k < C.
        tail: of the images.
        num_classes: C.

    Returns:
        even [B], the probability of each class that is named neither by the tail nor by the top-k; classes int64
        [B, m] of the tail; their probabilities [B, m]; and [B, m] 1 where these are, 0 where the class is of the top-k
        or none at all, and its probability 0.
    """
    dtype, k = left_B.dtype, index_Bk.shape[1]
    classes_Bm = tail.classes.index_select(0, tail.row)
    # 1 where the class is kept and not of the top-k, else 0
    live_Bm = (classes_Bm < num_classes).to(dtype) if tail.ragged else left_B.new_ones(classes_Bm.shape)
    # Several of the top-k can be sent to one place, but only one of them can be the class that is there.
    at_Bk = torch.searchsorted(classes_Bm, index_Bk.contiguous()).clamp_(max=classes_Bm.shape[1] - 1)
    hit_Bk = classes_Bm.gather(1, at_Bk) == index_Bk
    live_Bm.scatter_add_(1, at_Bk, -hit_Bk.to(dtype))
    probs_Bm = tail.probs.to(dtype).index_select(0, tail.row).mul_(live_Bm)
    others_B = num_classes - k - live_Bm.sum(1)
    rest_B = tail.rest.to(dtype).index_select(0, tail.row) * (others_B > 0)
    total_B = probs_Bm.sum(1) + rest_B * others_B
    flat_B = total_B == 0  # all of the tail is in the top-k of this crop: spread evenly, and name no class
    factor_B = torch.where(flat_B, 0.0, left_B / total_B)
    even_B = torch.where(flat_B, left_B / (num_classes - k), rest_B * factor_B)
    probs_Bm.mul_(factor_B[:, None])
    live_Bm.mul_(~flat_B[:, None])
    return even_B, classes_Bm.clamp_(max=num_classes - 1) if tail.ragged else classes_Bm, probs_Bm, live_Bm
