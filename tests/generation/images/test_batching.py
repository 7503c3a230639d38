"""Crops of successive images in full batches: every row is its crop's, and what is left of a batch is black."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from slg_wds.generation.batching import Buffers, CropBatch, full_batches
from slg_wds.generation.decoding import Prepared, ShardEnd
from slg_wds.generation.opening import LeftOut
from slg_wds.transforms.crops import CropRule
from slg_wds.transforms.drawn import DrawnCrops

ROWS, SIDE = 12, 8


def image(number: int, crops: int) -> Prepared:
    pixels = np.random.default_rng(number).integers(1, 256, (40, 30, 3), dtype=np.uint8)
    drawn = DrawnCrops.draw(0, str(number), (40, 30), crops, CropRule(), None)
    return Prepared(number, f"{number}.jpg", torch.from_numpy(pixels).permute(2, 0, 1), drawn, None, 0)


def packed(items: list[Prepared | LeftOut | ShardEnd]) -> list[tuple[CropBatch, torch.Tensor]]:
    """The batches, with a copy of the pixels of each, whose memory the next ones use again."""
    buffers = Buffers([(SIDE, "bilinear")], ROWS, pinned=False)
    found = []
    with ThreadPoolExecutor(3) as pool:
        for batch in full_batches(items, buffers, pool, ahead=0):
            found.append((batch, batch.inputs[0].clone()))
            buffers.give_back(batch.inputs)
    return found


def test_every_row_is_its_crop_and_the_others_are_black():
    images = [image(number, crops) for number, crops in enumerate((5, 0, 30, 1, 4))]
    gone = LeftOut(9, "it is gone")
    batches = packed([*images[:2], gone, images[2], ShardEnd(3), *images[3:], ShardEnd(4), ShardEnd(7)])
    assert [(batch.filled, batch.ended) for batch, _ in batches] == [
        (12, None), (12, None), (11, 3), (5, 4), (0, 7),
    ]  # fmt: skip
    assert [batch.left_out for batch, _ in batches] == [[], [], [gone], [], []]
    shown = []
    for batch, pixels in batches:
        assert not pixels[batch.filled :].any()
        for span in batch.spans:
            own = torch.empty((span.count, SIDE, SIDE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
            span.image.cut(slice(span.first, span.first + span.count), own, "bilinear")
            assert torch.equal(pixels[span.start : span.start + span.count], own)
            shown += [(span.image.number, crop) for crop in range(span.first, span.first + span.count)]
    assert shown == [(one.number, crop) for one in images for crop in range(len(one.crops))]
