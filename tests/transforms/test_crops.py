"""Boxes and flips are a pure function with torchvision's distribution; cut pixels are torchvision's."""

import math

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from slg_wds.errors import UsageError
from slg_wds.transforms.crops import CropRule, cut, sample_crops
from slg_wds.transforms.randomness import BOXES, philox_of

BILINEAR_BY_FLOAT = int(torchvision.__version__.split(".")[1]) < 24
RULE = CropRule()
GOLDEN_BOXES = [[152, 185, 212, 193], [0, 18, 375, 395], [209, 342, 124, 135], [48, 203, 126, 129]]
GOLDEN_FLIPS = [False, True, True, True]


@given(st.integers(0, 2**63 - 1), st.text(max_size=30), st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_first_crops_do_not_depend_on_how_many_are_asked(seed, key, height, width, data):
    few = data.draw(st.integers(0, 20))
    boxes, flips = sample_crops(seed, key, (height, width), 20, RULE)
    boxes_few, flips_few = sample_crops(seed, key, (height, width), few, RULE)
    assert np.array_equal(boxes[:few], boxes_few) and np.array_equal(flips[:few], flips_few)
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (top + h <= height).all() and (left + w <= width).all()


def test_golden_boxes_hold_across_versions_and_machines():
    boxes, flips = sample_crops(7, "n01440764/café", (375, 500), 4, RULE)
    assert boxes.tolist() == GOLDEN_BOXES
    assert flips.tolist() == GOLDEN_FLIPS


def scalar_crop(words: list[int], size: tuple[int, int], rule: CropRule) -> tuple[list[int], bool]:
    """One crop as torchvision's RandomResizedCrop finds it, number by number, from 44 random words."""
    numbers = [(word >> 11) * 2.0**-53 for word in words]
    height, width = size
    for attempt in range(10):
        area, aspect, top, left = numbers[4 * attempt : 4 * attempt + 4]
        area = height * width * (rule.scale[0] + (rule.scale[1] - rule.scale[0]) * area)
        low, high = (math.log(one) for one in rule.ratio)
        aspect = math.exp(low + (high - low) * aspect)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return [int(top * (height - h + 1)), int(left * (width - w + 1)), h, w], numbers[40] < rule.flip
    h, w = height, width
    if width / height < rule.ratio[0]:
        h = max(1, round(width / rule.ratio[0]))
    elif width / height > rule.ratio[1]:
        w = max(1, round(height * rule.ratio[1]))
    return [(height - h) // 2, (width - w) // 2, h, w], numbers[40] < rule.flip


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        ((375, 500), RULE),
        ((100, 50), CropRule(scale=(0.5, 0.5), ratio=(1, 1))),  # as wide as the image, and never higher
        ((50, 100), CropRule(scale=(0.5, 0.5), ratio=(1, 1), flip=0.0)),
        ((3, 2), CropRule(scale=(0.001, 0.3), ratio=(0.01, 100), flip=1.0)),  # many boxes without a pixel
        (
            (30_000, 20_000),
            CropRule(scale=(0.001, 0.01), ratio=(0.01, 100)),
        ),  # large enough to show how exact the ratio is
        ((100, 901), CropRule(scale=(0.9, 1.0))),  # none fits
        ((901, 100), CropRule(scale=(0.9, 1.0))),
        ((1, 200), CropRule(scale=(0.9, 1.0), ratio=(0.01, 0.02))),  # nor a box of a pixel's width
        ((200, 1), CropRule(scale=(0.9, 1.0), ratio=(50, 100))),
    ],
)
def test_boxes_and_flips_are_those_of_the_scalar_definition(size, rule):
    boxes, flips = sample_crops(5, "a", size, 300, rule)
    words = philox_of(5, "a", BOXES).random_raw(300 * 44).tolist()
    wanted = [scalar_crop(words[44 * n : 44 * n + 44], size, rule) for n in range(300)]
    assert boxes.tolist() == [box for box, _ in wanted]
    assert flips.tolist() == [flip for _, flip in wanted]


def test_seed_key_and_size_each_matter():
    base = sample_crops(0, "a", (300, 400), 50, RULE)[0]
    for other in [(1, "a", (300, 400)), (0, "b", (300, 400)), (0, "a", (300, 401))]:
        assert not np.array_equal(base, sample_crops(*other, 50, RULE)[0])


@pytest.mark.parametrize(
    ("size", "scale"), [((375, 500), (0.08, 1.0)), ((500, 375), (0.08, 0.936)), ((100, 900), (0.5, 1.0))]
)
def test_distribution_is_that_of_random_resized_crop(size, scale):
    count = 100_000
    ours, flips = sample_crops(3, "image", size, count, CropRule(scale=scale))
    torch.manual_seed(0)
    image = torch.empty(3, *size)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(10_000)]
    )
    for name, of in {
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
    }.items():
        assert stats.ks_2samp(of(ours), of(theirs)).pvalue > 1e-4, name
    assert abs(flips.mean() - 0.5) < 5 * 0.5 / count**0.5


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("hwc", [True, False])
def test_cut_equals_torchvision(interpolation, hwc):
    if interpolation == "bilinear" and BILINEAR_BY_FLOAT:
        pytest.skip(
            "this torchvision resizes bilinear through float32 on AVX-512: other pixels than torch's uint8"
        )
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)).permute(2, 0, 1)
    image = pixels if hwc else pixels.contiguous()
    boxes, flips = sample_crops(1, "x", (90, 120), 40, RULE)
    boxes[0] = (0, 0, 1, 1)
    out = torch.empty((40, 3, 32, 32), dtype=torch.uint8, memory_format=torch.channels_last)
    cut(image, boxes, flips, out, interpolation)
    for (top, left, height, width), flip, ours in zip(boxes.tolist(), flips.tolist(), out, strict=True):
        theirs = tv.resized_crop(
            image, top, left, height, width, [32, 32], InterpolationMode(interpolation), antialias=True
        )
        assert torch.equal(ours, theirs.flip(-1) if flip else theirs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (0.5, 0.4)},
        {"scale": (0.0, 1.0)},
        {"scale": (0.1, 1.1)},
        {"ratio": (2, 1)},
        {"ratio": (0.009, 1)},
        {"ratio": (1, 101)},
        {"flip": -0.1},
        {"flip": 1.5},
    ],
)
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(UsageError):
        CropRule(**wrong)
