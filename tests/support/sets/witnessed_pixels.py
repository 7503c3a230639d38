"""A loader's crops against sets whose labels encode the input of `support.models.witness_teacher`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.models.witness_teacher import hashed, witnessed
from support.paths import MODELS
from support.sets.replay_sets import Made, make

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WITNESS = f"{MODELS / 'witness_teacher.py'}:bilinear97"


def labelled(data: Path, target: Path, **options: Any) -> str:
    """Make a set of that teacher, which embeds its images."""
    defaults = {"arch": WITNESS, "label_type": "full", "values": "float32", "num_crops": 8, "num_seg": 20}
    return make(data, target, embed_images="original", **{**defaults, **options})


def check_pixels(made: Made, crops: int, images: int, **options) -> None:
    """Assert that every crop of every image is the teacher's input, to the bit; a batch has `crops` of an image."""
    loader = made.loader(global_batch_size=crops * 4, crops_per_image=crops, **options).to("cpu", MEAN, STD)
    seen = set()
    for batch in loader:
        for i in range(len(batch)):
            assert (hashed(batch.images[i]) == witnessed(batch.value[i].numpy())).all(), batch.key[i]
            seen.add((batch.key[i], int(batch.crop[i])))
    assert len(seen) == crops * images
