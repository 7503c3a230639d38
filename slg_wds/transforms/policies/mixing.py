"""Seed, key, rule and shard -> which second view is mixed into each crop. Random numbers are exact on every machine.

What is drawn is what timm's `Mixup` draws for each element of a batch, with images of the shard in place of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from slg_wds.arrays import F64, I64, U8, U64
from slg_wds.errors import UsageError
from slg_wds.format.records.mixing import GRID, UNMIXED, WHOLE, Mixing
from slg_wds.transforms.policies.beta import thresholds
from slg_wds.transforms.randomness import MIXING, philox_of, uniforms

PARTNERS = 4  # images that are mixed into the crops of one image
MAX_ALPHA = 100.0
# Random words of 64 bits: of an image, one for each partner; then of each crop, for whether it is mixed, whether by
# CutMix, the weight, the middle of the box (row, column), the partner, and two unused.
CROP_WORDS = 8


@dataclass(frozen=True)
class MixRule:
    """How second views are mixed in.

    Attributes:
        mixup: the parameter of the Beta distribution from which mixup's weight is drawn; 0 for no mixup.
        cutmix: that of CutMix; 0 for no CutMix.
        probability: with which a crop is mixed.
        switch: where there are both, the probability of CutMix.

    Raises:
        UsageError: a value outside its range.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if not 0 <= alpha <= MAX_ALPHA:
                raise UsageError(f"--{name} {alpha:g} is not within 0 to {MAX_ALPHA:g}")
        for name, share in (("mixup-prob", self.probability), ("mixup-switch-prob", self.switch)):
            if not 0 <= share <= 1:
                raise UsageError(f"--{name} {share:g} is not a probability")

    @property
    def mixes(self) -> bool:
        """Whether any crop may be mixed."""
        return (self.mixup > 0 or self.cutmix > 0) and self.probability > 0


def sample_mixing(seed: int, key: str, num_crops: int, rule: MixRule, number: int, shard: range) -> Mixing:
    """Draw what is mixed into the first `num_crops` crops of an image.

    The result is a pure function of the arguments, and that of crop n does not depend on `num_crops`. Crop n gets crop
    n of its partner: all crops are independent draws, so this is as random as any other choice, and takes no bytes.

    Args:
        seed: 0 <= seed < 2**63.
        key: the image's key in the label set.
        num_crops: M, at least 0.
        rule: how to mix.
        number: the image's number in the plan.
        shard: numbers of all images of its shard, from which partners are drawn.

    Returns:
        The mixing of M crops. Nothing is mixed where the shard has no other image.
    """
    if len(shard) < 2 or not num_crops:
        return Mixing.none(num_crops)
    source = philox_of(seed, key, MIXING)
    partners = _partners(source.random_raw(PARTNERS), number, shard)
    words = source.random_raw(num_crops * CROP_WORDS).reshape(num_crops, CROP_WORDS)
    drawn = uniforms(words)
    mixed = drawn[:, 0] < rule.probability
    pasted = mixed & ((drawn[:, 1] < rule.switch) if rule.mixup and rule.cutmix else rule.cutmix > 0)
    box, lam = np.zeros((num_crops, 4), np.uint8), np.zeros(num_crops, np.uint8)
    if pasted.any():
        box[pasted] = _boxes(words[pasted, 2], drawn[pasted, 3:5], rule.cutmix)
    if (blended := mixed & ~pasted).any():
        lam[blended] = _lambdas(words[blended, 2], rule.mixup)
    mixed = blended | box.any(axis=1)  # a box of no height shows nothing of the partner
    partner = np.where(mixed, partners[(drawn[:, 5] * len(partners)).astype(np.int64)], UNMIXED)
    crop = np.where(mixed, np.arange(num_crops), 0).astype(np.uint16)
    return Mixing(partner, crop, lam, box)


def _partners(words: U64, number: int, shard: range) -> I64:
    """Draw distinct images of the shard other than `number`, int64 [P]."""
    others = [one for one in shard if one != number]
    drawn = [others.pop(word * len(others) >> 64) for word in words[: len(others)].tolist()]
    return np.array(drawn, np.int64)


def _lambdas(words: U64, alpha: float) -> U8:
    """Draw weights of Beta(alpha, alpha) in 1/256, rounded to nearest and cut to 1..255, from words of 64 bits [n]."""
    edges = [Fraction(2 * step + 1, 2 * WHOLE) for step in range(1, WHOLE - 1)]
    return (1 + np.searchsorted(thresholds(alpha, edges), words, side="right")).astype(np.uint8)


def _boxes(words: U64, middle: F64, alpha: float) -> U8:
    """Draw mix boxes as timm's `rand_bbox` (1.0.31) does on GRID x GRID pixels, uint8 [n, 4]; zeros for no box.

    A box of the area 1 - l, with l of Beta(alpha, alpha), has sides of floor(GRID root(1 - l)) steps: at most n, where
    1 - l < ((n + 1) / GRID)^2. Its middle lies anywhere, and it is cut to the view.
    """
    edges = [Fraction(step, GRID) ** 2 for step in range(1, GRID)]
    side = np.searchsorted(thresholds(alpha, edges), words, side="right")[:, None]
    at = (middle * GRID).astype(np.int64)
    low, high = np.maximum(at - side // 2, 0), np.minimum(at + (side + 1) // 2, GRID)
    boxes: U8 = np.where(side > 0, np.concatenate([low, high - low], axis=1), 0).astype(np.uint8)
    return boxes
