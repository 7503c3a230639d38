"""Crops of an image as one object: what makes two of them the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slg_wds.transforms.crops import CropRule
from slg_wds.transforms.drawn import DrawnCrops
from slg_wds.transforms.policies.rules import ViewRule


def drawn(seed: int = 0) -> DrawnCrops:
    return DrawnCrops.draw(seed, "a", (60, 80), 6, CropRule(), ViewRule(erased=1.0, erase_fill=0))


def test_crops_drawn_twice_are_the_same():
    assert drawn().same_as(drawn())


@pytest.mark.parametrize("part", ["boxes", "flips", "views"])
def test_one_other_part_makes_other_crops(part):
    other = getattr(drawn(1), part)
    assert not drawn().same_as(replace(drawn(), **{part: other}))
    assert not replace(drawn(), **{part: other}).same_as(drawn())


def test_views_are_not_the_same_as_none():
    assert not drawn().same_as(replace(drawn(), views=None))


def test_some_of_the_crops_have_their_own_views():
    some = drawn()[np.array([4, 1])]
    assert some.same_as(DrawnCrops(drawn().boxes[[4, 1]], drawn().flips[[4, 1]], drawn().views[[4, 1]]))
    assert not some.same_as(drawn()[np.array([1, 4])])
