"""Policies draw as the libraries' own do, purely, and independently of boxes."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from slg_wds.errors import UsageError
from slg_wds.format.records.views import same_views
from slg_wds.transforms.crops import CropRule, sample_crops
from slg_wds.transforms.operations import NEGATIVE, OPERATIONS, RESAMPLING, Operation
from slg_wds.transforms.policies.drawing import sample_views
from slg_wds.transforms.policies.grammar import parse_views
from slg_wds.transforms.policies.rules import ViewRule

MEAN = (0.485, 0.456, 0.406)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
Drawn = tuple[Operation, float]  # an operation and its value


def rule_of(aa: str | None, jitter: float = 0.0, erased: float = 0.0) -> ViewRule:
    rule = parse_views(aa, jitter, erased)
    assert rule is not None
    return rule.with_mean(MEAN)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(
        ["rand-m9-mstd0.5-inc1", "rand-m5-n3-mstd101", "rand-m8-tweights", "ra-n2-m9", "trivialaugment", "3a"]
    ),
    st.integers(0, 2**63 - 1),
    st.text(min_size=1, max_size=8),
    st.integers(0, 30),
)
def test_views_are_pure_and_do_not_depend_on_how_many_are_drawn(aa, seed, key, few):
    rule = rule_of(aa, 0.4, 0.25)
    many = sample_views(seed, key, 30, rule)
    assert same_views(many[:few], sample_views(seed, key, few, rule))
    assert same_views(many, sample_views(seed, key, 30, rule))
    assert not same_views(many, sample_views(seed + 1 if seed < 2**62 else seed - 1, key, 30, rule))
    assert not same_views(many, sample_views(seed, key + "x", 30, rule))


def test_drawn_views_are_the_golden_ones():
    """These numbers are in label sets: they must never change."""
    views = sample_views(7, "n01440764/café", 3, rule_of("rand-m9-mstd0.5-inc1", 0.3, 0.5))
    assert views.operations.tolist() == GOLDEN_OPERATIONS
    assert views.arguments.tolist() == GOLDEN_ARGUMENTS
    assert views.erased.tolist() == GOLDEN_ERASED
    assert (views.fill, views.erase_fill) == (0x7C7468, 0x7C7468)


def test_views_say_nothing_about_boxes():
    """Whether a crop is flipped, and whether it is erased, are independent: other numbers of Philox decide them."""
    boxes, flips = sample_crops(0, "a", (300, 400), 4000, CropRule())
    views = sample_views(0, "a", 4000, rule_of("rand-m9-mstd0.5-inc1", 0.0, 0.5))
    for drawn in (views.erased.any(axis=1), views.operations[:, 0] > 0):
        for one in (flips, boxes[:, 0] > np.median(boxes[:, 0])):
            assert abs(np.corrcoef(drawn, one)[0, 1]) < 0.06


def ours(aa: str, count: int) -> list[Drawn]:
    views = sample_views(0, "key", count, rule_of(aa))
    found = []
    for code, argument in zip(
        views.operations.ravel().tolist(), views.arguments.ravel().tolist(), strict=True
    ):
        if code:
            operation = OPERATIONS[code % NEGATIVE - 1]
            found.append((operation, operation.value(code, argument)))
    return found


def compare(mine: list[Drawn], theirs: list[Drawn], draws: int) -> None:
    """Both draw each operation as often, and values of the same distribution, on the same grid."""
    counts, others = Counter(one.name for one, _ in mine), Counter(one.name for one, _ in theirs)
    assert set(counts) == set(others)
    for name in counts:
        assert abs(counts[name] - others[name]) < 5 * (counts[name] + others[name]) ** 0.5, name
    values: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for side, drawn in enumerate((mine, theirs)):
        for one, value in drawn:
            values[one.name][side].append(value)
    for name, (a, b) in values.items():
        grid = np.unique(a + b)
        below = [np.searchsorted(np.sort(x), grid, side="right") / len(x) for x in (a, b)]
        limit = (
            2.2 * (1 / len(a) + 1 / len(b)) ** 0.5
        )  # of Kolmogorov and Smirnov: exceeded once in 10,000 times
        assert np.abs(below[0] - below[1]).max() < limit, name


def on_grid(name: str, value: float, into: list[Drawn]) -> None:
    """Note what a library did, as the nearest that can be recorded."""
    operation = BY_NAME[name]
    codes, arguments = operation.encode(np.array([float(value)]))
    if codes[0]:
        into.append((operation, operation.value(int(codes[0]), int(arguments[0]))))


TIMM_NAMES = {"TranslateXRel": "TranslateX", "TranslateYRel": "TranslateY", "Desaturate": "Color"}


def by_timm(aa: str, count: int) -> tuple[list[Drawn], Counter[int]]:
    """What timm's own policy does in `count` calls, and which resamplings it takes."""
    from timm.data.auto_augment import rand_augment_transform

    policy = rand_augment_transform(aa, {"img_mean": (124, 116, 104)})
    found: list[Drawn] = []
    filters: Counter[int] = Counter()
    for op in policy.ops:
        name = TIMM_NAMES.get(op.name, op.name.removesuffix("Increasing").removesuffix("Original"))

        def record(img, *level, name=name, op=op, **options):
            value = level[0] if level else 0.0
            value = 1 - min(1.0, max(0.0, value)) if op.name == "Desaturate" else value
            value = value / 224 if name == "GaussianBlur" else value
            on_grid(name, value, found)
            if BY_NAME[name].resampled:
                filters[int(random.choice(options["resample"]))] += 1
            return img

        op.aug_fn = record
    for _ in range(count):
        policy(None)
    return found, filters


TIMM = ["rand-m9-mstd0.5-inc1", "rand-m7-n3-mstd101-p0.8", "rand-m6-mstd1-inc1-tweights", "rand-m8-n1-t3a"]


@pytest.mark.parametrize(
    ("aa", "draws"), [(TIMM[0], 20_000), *[pytest.param(aa, 100_000, marks=pytest.mark.slow) for aa in TIMM]]
)
def test_timms_policies_are_timms(aa, draws):
    random.seed(0)
    np.random.seed(0)
    theirs, filters = by_timm(aa, draws)
    compare(ours(aa, draws), theirs, draws)
    views = sample_views(0, "key", draws, rule_of(aa))
    if filters:  # Pillow's numbers of bilinear and bicubic: of these, bilinear alone is drawn here
        assert set((views.operations[views.operations >= RESAMPLING] // RESAMPLING).tolist()) == {1}
        assert set(filters) == {2, 3}


def by_torchvision(aa: str, count: int) -> list[Drawn]:
    """What torchvision's own policy does in `count` calls on images of 224 pixels."""
    from torchvision.transforms import v2

    policy = v2.TrivialAugmentWide() if aa == "trivialaugment" else v2.RandAugment(2, 9)
    found: list[Drawn] = []

    def record(image, name, magnitude, **_):
        if name == "Identity":
            return image
        if name in ("Brightness", "Color", "Contrast", "Sharpness"):
            magnitude = 1 + magnitude
        elif name.startswith("Translate"):
            magnitude = magnitude / 224
        elif name == "Solarize":
            # Values below the threshold stay. Some float32 are a little above their level: 204.000003 is meant as 204.
            magnitude = np.ceil(round(255 * magnitude, 3))
        on_grid(name, magnitude, found)
        return image

    policy._apply_image_or_video_transform = record
    image = Image.new("RGB", (224, 224))
    for _ in range(count):
        policy(image)
    return found


@pytest.mark.parametrize(
    ("aa", "draws"),
    [
        ("trivialaugment", 10_000),
        *[pytest.param(aa, 100_000, marks=pytest.mark.slow) for aa in ("ra-n2-m9", "trivialaugment")],
    ],
)
def test_torchvisions_policies_are_torchvisions(aa, draws):
    torch.manual_seed(0)
    compare(ours(aa, draws), by_torchvision(aa, draws), draws)


def test_three_augment_is_that_of_deit_iii():
    counts = Counter(one.name for one, _ in ours("3a", 9000))
    assert set(counts) == {"Color", "Solarize", "GaussianBlur"} and min(counts.values()) > 2800
    values = {name: [value for one, value in ours("3a", 9000) if one.name == name] for name in counts}
    assert set(values["Color"]) == {0.0} and set(values["Solarize"]) == {128.0}
    assert np.isclose(np.mean(values["GaussianBlur"]) * 224, 1.05, atol=0.03)


def test_colour_jitter_is_torchvisions():
    """Three factors in 1 +- strength, evenly, in a random order."""
    views = sample_views(0, "key", 6000, rule_of(None, 0.4))
    orders = Counter(tuple(row) for row in (views.operations % NEGATIVE).tolist())
    assert len(orders) == 6 and min(orders.values()) > 850
    signs = np.where(views.operations & NEGATIVE, -1, 1)
    factors = 1 + signs * views.arguments / 255
    assert factors.min() >= 0.6 - 1 / 510 and factors.max() <= 1.4 + 1 / 510
    assert abs(factors.mean() - 1) < 0.01 and abs(factors.std() - 0.4 / 3**0.5) < 0.01


def test_erased_boxes_are_timms():
    """Area, height and width have timm's distribution; a box is at each place where it fits equally often."""
    from timm.data.random_erasing import RandomErasing

    random.seed(0)
    eraser, theirs = RandomErasing(1.0, device="cpu"), []
    for _ in range(1500):
        pixels = torch.ones(1, 255, 255)
        eraser(pixels)
        rows, columns = (np.flatnonzero((pixels[0] == 0).any(dim=axis).numpy()) for axis in (1, 0))
        if len(rows):
            theirs.append((rows[0], columns[0], len(rows), len(columns)))
    views = sample_views(0, "key", 1500, rule_of(None, 0.0, 1.0))
    mine = views.erased[views.erased.any(axis=1)].astype(float)
    assert abs(len(mine) - len(theirs)) < 25
    for of in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 2],
        lambda b: b[:, 3],
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        a, b = np.sort(of(mine)), np.sort(of(np.array(theirs, float)))
        grid = np.union1d(a, b)
        apart = np.searchsorted(a, grid, side="right") / len(a) - np.searchsorted(
            b, grid, side="right"
        ) / len(b)
        assert np.abs(apart).max() < 0.06
    quarter = sample_views(1, "key", 8000, rule_of(None, 0.0, 0.25)).erased.any(axis=1).mean()
    assert abs(quarter - 0.25) < 0.02


@pytest.mark.parametrize(
    ("aa", "message"),
    [
        ("rand-m9-mstd0.5-x3", "'x3' is none of mN, nN, pN, mstdN, incN"),
        ("rand-m11", "m is a whole number from 0 to 10, not 11"),
        ("rand-m9-n17", "n is a whole number from 1 to 16, not 17"),
        ("rand-m9-p1.5", "p is a number from 0 to 1, not 1.5"),
        ("rand-m9-m8", "gives m twice"),
        ("rand-m9-tbest", "'best' is no set; one of 3a, weights, 3aw"),
        ("rand-n16-tweights", "draws 16 of 15 operations"),
        ("ra-m31", "m is a whole number from 0 to 30, not 31"),
        ("ra-n2.5", "n is a whole number from 1 to 16, not 2.5"),
        ("trivialaugmnt", "did you mean trivialaugment"),
        ("augmix-m3", "is not a known policy; give one like rand-m9-mstd0.5-inc1"),
        ("", "is not a known policy"),
    ],
)
def test_policies_that_do_not_exist_are_refused(aa, message):
    with pytest.raises(UsageError) as caught:
        parse_views(aa, 0.0, 0.0)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("jitter", "erased", "name"),
    [(1.1, 0, "--color-jitter 1.1"), (-1, 0, "--color-jitter -1"), (0, 2, "--reprob 2")],
)
def test_numbers_out_of_range_are_refused(jitter, erased, name):
    with pytest.raises(UsageError, match=name):
        parse_views(None, jitter, erased)


def test_no_option_draws_nothing():
    assert parse_views(None, 0.0, 0.0) is None


GOLDEN_OPERATIONS = [[3, 7, 8, 9, 42], [77, 0, 9, 40, 10], [9, 111, 40, 10, 9]]
GOLDEN_ARGUMENTS = [[0, 89, 33, 9, 50], [68, 0, 20, 41, 48], [180, 187, 42, 47, 11]]
GOLDEN_ERASED = [[100, 26, 154, 106], [0, 0, 0, 0], [0, 0, 0, 0]]
