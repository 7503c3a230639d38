"""A second view mixed into a view: mixup blends the two, CutMix pastes a box of the second one. Nothing is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.arrays import I64, U8
from slg_wds.format.records.mixing import WHOLE, Mixing
from slg_wds.transforms.replaying import erased_pixels

if TYPE_CHECKING:
    import torch


def mix_partners(views: torch.Tensor, mixing: Mixing, crops_of: Callable[[int, I64], torch.Tensor]) -> None:
    """Mix their partners into the views of an image, in place.

    Args:
        views: uint8 [M, 3, S, S] in the memory of the CPU, channels_last.
        mixing: of these M views.
        crops_of: called once for each partner with its number in the plan and the numbers of its crops, int64 [m];
            returns these as whole views, uint8 [m, 3, S, S].
    """
    for number in mixing.partners().tolist():
        at = np.flatnonzero(mixing.partner == number)
        partners = crops_of(number, mixing.crop[at].astype(np.int64))
        for crop, partner in zip(at.tolist(), partners, strict=True):
            mix_view(views[crop], partner, int(mixing.lam[crop]), mixing.box[crop])


def mix_view(view: torch.Tensor, partner: torch.Tensor, lam: int, box: U8) -> None:
    """Mix a partner into a view, in place, in whole numbers: every machine has the same pixels.

    Both views are whole: cut, resized and mirrored, with their operations done and their boxes erased.

    Args:
        view: uint8 [3, S, S] in the memory of the CPU, fastest channels_last; receives the mix.
        partner: uint8 [3, S, S], the same; not changed.
        lam: the weight of the view's own pixels in mixup, 1 to 255 of 256; 0 for CutMix.
        box: uint8 [4] of top, left, height, width in 1/255 of the side: where CutMix shows the partner. The box covers
            the same pixels as an erased one would. Not used by mixup.

    Mixup is that of Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), CutMix that of Yun et al.,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features" (2019).
    """
    own, other = (one.permute(1, 2, 0).numpy() for one in (view, partner))  # [S, S, 3], the same memory
    if lam:
        sums = np.multiply(own, lam, dtype=np.uint16)  # at most 255 x 256 + 128: no sum is too large
        sums += np.multiply(other, WHOLE - lam, dtype=np.uint16)
        sums += WHOLE // 2
        own[:] = np.right_shift(sums, 8, out=sums)
    else:
        top, left, bottom, right = erased_pixels(box, len(own))
        own[top:bottom, left:right] = other[top:bottom, left:right]
