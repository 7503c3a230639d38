"""Boxes and flips are a pure function with torchvision's distribution; cut pixels are torchvision's."""

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
        [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(30_000)]
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
    [{"scale": (0.5, 0.4)}, {"scale": (0.0, 1.0)}, {"scale": (0.1, 1.1)}, {"ratio": (2, 1)}, {"flip": 1.5}],
)
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(UsageError):
        CropRule(**wrong)
