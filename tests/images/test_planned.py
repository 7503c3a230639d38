"""Images of a plan are read and decoded in threads, in order, and never far ahead."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from slg_wds.errors import ImageTooLargeError
from slg_wds.images.planned import planned_images
from support.images.encoded import saved
from support.images.sources import opened

SIDES = range(10, 17)  # each image is told by its width


@pytest.fixture
def source(tmp_path):
    for side in SIDES:
        (tmp_path / f"{side}.png").write_bytes(saved(Image.new("RGB", (side, 10), (side, 0, 0)), "png"))
    return opened(tmp_path)


def width_of(pixels: torch.Tensor) -> int:
    return pixels.shape[2]


def test_the_wanted_images_come_in_order_from_all_their_shards(source):
    plan = source.plan(0, 3)
    widths = [int(path.partition(".")[0]) for path in plan.paths]
    wanted = np.array([0, 2, 3, 6])  # of the first shard two, of the second one, and all of the third
    with ThreadPoolExecutor(2) as pool:
        found = list(planned_images(source, plan, wanted, width_of, pool, ahead=2))
        assert found == [(number, widths[number]) for number in wanted.tolist()]
        assert list(planned_images(source, plan, wanted[:0], width_of, pool, ahead=2)) == []


def test_no_image_is_read_before_it_is_near(source):
    made: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        images = planned_images(source, source.plan(0, 3), np.arange(7), lambda _: made.append(0), pool, 2)
        next(images)
    assert len(made) == 3, "the first and the two ahead of it"


def test_an_image_over_the_limit_is_named(source):
    plan = source.plan(0, 3)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ImageTooLargeError, match=r"16\.png"):
        list(planned_images(source, plan, np.arange(7), width_of, pool, ahead=9, max_pixels=159))
