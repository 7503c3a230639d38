"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch: pixels and distributions alike."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from slg_wds.labels import SoftLabels, mix
from slg_wds.training.flags import Settings
from slg_wds.training.transfer import sent


def mixup_cutmix(args: Settings, step: int, images: Tensor, labels: SoftLabels) -> tuple[Tensor, SoftLabels]:
    """Blend each crop with another one of the batch, or paste a box of the other one into it.

    Args:
        args: the flags; seed and rank decide what is drawn, together with `step`.
        step: number of the step.
        images: [B, 3, S, S]; not changed.
        labels: B distributions.

    Returns:
        The mixed crops and their distributions.
    """
    draw = np.random.default_rng([args.seed, args.rank, step])
    if draw.random() >= args.mixup_cutmix_prob:
        return images, labels
    use_mixup = draw.random() < args.mixup_switch_prob
    share = draw.beta(args.mixup, args.mixup) if use_mixup else draw.beta(args.cutmix, args.cutmix)
    other = sent(torch.from_numpy(draw.permutation(len(images))), images.device)
    if use_mixup:
        images = torch.lerp(images[other], images, share)
    else:
        images, share = _paste_box(draw, images, other, share)
    return images, mix([labels, labels[other]], [share, 1 - share])


def _paste_box(
    draw: np.random.Generator, images: Tensor, other: Tensor, share: float
) -> tuple[Tensor, float]:
    """Paste a box of images[other]; returns the crops and the share of their own pixels, 0..1."""
    side = images.shape[-1]
    cut, (y, x) = int(side * math.sqrt(1 - share)), draw.integers(0, side, 2).tolist()
    top, bottom = max(y - cut // 2, 0), min(y + cut // 2, side)
    left, right = max(x - cut // 2, 0), min(x + cut // 2, side)
    pasted = images[other, :, top:bottom, left:right]
    images = images.clone(memory_format=torch.preserve_format)  # the loader may use the batch again
    images[:, :, top:bottom, left:right] = pasted
    return images, 1 - (bottom - top) * (right - left) / side**2  # the edges may cut the box off
