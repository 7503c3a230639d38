"""What is drawn to be mixed: pure, within the shard, and distributed as timm's `Mixup` draws for each element."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data.mixup import Mixup, rand_bbox

from slg_wds.errors import UsageError
from slg_wds.format.records.mixing import check_mixing, mixing_columns, same_mixing
from slg_wds.transforms.policies.beta import thresholds
from slg_wds.transforms.policies.mixing import MixRule, sample_mixing

DRAWS = 100_000
SHARD = range(1000, 2000)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest distance of two cumulative distributions (Kolmogorov and Smirnov)."""
    at = np.union1d(one, other)
    below = [np.searchsorted(np.sort(part), at, side="right") / len(part) for part in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


LIMIT = 1.95 * (2 / DRAWS) ** 0.5  # of two samples of one distribution, 1 in 1,000 are further apart


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**63 - 1),
    st.text(min_size=1).filter(lambda text: "\0" not in text),
    st.integers(0, 40),
    st.integers(2, 12),
    st.floats(0.01, 100),
    st.floats(0.01, 100),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_draws_are_pure_and_within_the_shard(seed, key, crops, images, mixup, cutmix, p, switch):
    key = key.encode("utf-8", "ignore").decode() or "a"
    rule, shard = MixRule(mixup, cutmix, p, switch), range(70, 70 + images)
    found = sample_mixing(seed, key, crops + 5, rule, 71, shard)
    check_mixing(found, crops + 5)
    assert same_mixing(found[:crops], sample_mixing(seed, key, crops, rule, 71, shard))
    partners = found.partners().tolist()
    assert len(partners) <= 4 and set(partners) <= set(shard) - {71}
    assert np.array_equal(found.crop, np.where(found.mixed, np.arange(crops + 5), 0))


def test_a_lone_image_and_a_rule_without_mixing():
    assert not sample_mixing(0, "a", 9, MixRule(1.0), 3, range(3, 4)).mixed.any()
    assert not MixRule().mixes and not MixRule(1.0, probability=0.0).mixes and MixRule(cutmix=0.1).mixes
    for bad in ({"mixup": -1.0}, {"cutmix": float("inf")}, {"probability": 2.0}, {"switch": float("nan")}):
        with pytest.raises(UsageError, match="is not"):
            MixRule(**bad)


def samples(rule: MixRule) -> list:
    """The mixing of DRAWS crops of different images."""
    return [sample_mixing(5, f"image {n}", 500, rule, 1007, SHARD) for n in range(DRAWS // 500)]


@pytest.mark.parametrize("alpha", [0.1, 0.8, 1.0, 5.0])
def test_weights_of_mixup_are_of_the_beta_distribution(alpha):
    found = np.concatenate([one.lam for one in samples(MixRule(mixup=alpha))])
    expected = np.random.default_rng(1).beta(alpha, alpha, DRAWS)
    assert apart(found, np.clip(np.rint(expected * 256), 1, 255)) < LIMIT
    assert abs(found.mean() - 128) < 1.5


def cuts_short() -> bool:
    """Whether timm, as it did for years, makes boxes of odd sides a pixel too small, so that this one is empty."""
    top, bottom, _, _ = rand_bbox((255, 255), 1 - (1.5 / 255) ** 2)
    return bool(top == bottom)


@pytest.mark.skipif(cuts_short(), reason="this version of timm draws other boxes")
@pytest.mark.parametrize(
    "alpha", [0.2, *(pytest.param(alpha, marks=pytest.mark.slow) for alpha in (1.0, 4.0))]
)
def test_boxes_of_cutmix_are_timms(alpha):
    found = np.concatenate([one.box for one in samples(MixRule(cutmix=alpha))]).astype(int)
    np.random.seed(1)
    boxes = np.array([rand_bbox((255, 255), lam) for lam in np.random.beta(alpha, alpha, DRAWS)])
    top, bottom, left, right = boxes.T
    there = bottom > top
    for mine, theirs in zip(found.T, (top, left, bottom - top, right - left), strict=True):
        assert apart(mine, np.where(there, theirs, 0)) < LIMIT
    area = np.where(there, (bottom - top) * (right - left), 0)
    assert apart(found[:, 2] * found[:, 3], area) < LIMIT


@pytest.mark.parametrize(
    "rule", [MixRule(0.8, 1.0), MixRule(0.8, 1.0, 0.3, 0.9), MixRule(0.0, 1.0, 0.5, 0.0), MixRule(0.5, 0.0)]
)
def test_probabilities_mean_what_they_mean_to_timm(rule):
    parts = samples(rule)
    mixed = np.concatenate([one.mixed for one in parts])
    blended = np.concatenate([one.lam > 0 for one in parts])
    np.random.seed(2)
    timm = Mixup(rule.mixup, rule.cutmix, prob=rule.probability, switch_prob=rule.switch, mode="elem")
    lam, pasted = timm._params_per_elem(DRAWS)
    expected = lam != 1
    assert abs(mixed.mean() - expected.mean()) < 0.01
    assert abs(blended.mean() - (expected & ~pasted).mean()) < 0.01


def test_all_partners_are_drawn_equally_often():
    counts = np.zeros(11, int)
    for n in range(1000):
        found = sample_mixing(1, str(n), 20, MixRule(1.0), 4, range(11))
        counts[found.partners()] += 1
    assert counts[4] == 0 and np.abs(counts[np.arange(11) != 4] / 1000 - 0.4).max() < 0.07


def test_the_beta_tables_are_exact():
    points = [Fraction(n, 17) for n in range(18)]
    assert thresholds(1.0, points).tolist() == [min(int(x * 2**64), 2**64 - 1) for x in points]
    square = [int((3 * x**2 - 2 * x**3) * 2**64) for x in points]
    assert thresholds(2.0, points).tolist() == [min(x, 2**64 - 1) for x in square]
    # Every machine has these bits.
    digest = hashlib.sha256(thresholds(0.8, points).astype("<u8").tobytes()).hexdigest()
    assert digest == "ea5fbc5453005a4b229546d0bdf9f7e520b1cc42b9da1aaa79776990ad3150dc"


def test_draws_are_pinned():
    found = sample_mixing(0, "a", 6, MixRule(0.8, 1.0), 1007, SHARD)
    assert found.partner.tolist() == [1843, 1629, 1754, 1629, 1761, 1754]
    assert found.lam.tolist() == [209, 0, 36, 0, 0, 0]
    boxes = [
        [0, 0, 0, 0],
        [94, 53, 130, 130],
        [0, 0, 0, 0],
        [0, 26, 214, 229],
        [0, 129, 73, 105],
        [91, 0, 164, 217],
    ]
    assert found.box.tolist() == boxes


def test_mixing_takes_at_most_10_bytes_a_crop():
    """At 500 crops of an image, with mixup 0.8 and cutmix 1.0; the partners' numbers are large."""
    sizes = []
    for key in "abcdefgh":
        found = sample_mixing(0, key, 500, MixRule(0.8, 1.0), 1_200_003, range(1_200_000, 1_201_000))
        sizes.append(sum(len(frame) for frames in mixing_columns(found).values() for frame in frames) / 500)
    assert np.mean(sizes) <= 3.2
