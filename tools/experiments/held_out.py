"""Photographs that students are trained on, and photographs that are kept from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from slg_wds.demo.photographs import PHOTOGRAPHS, VIEWS, cut_views

HELD_OUT_VIEW = 5  # the central one
UNSEEN = {
    "astronaut": skimage.data.astronaut,
    "coins": skimage.data.coins,
    "hubble": skimage.data.hubble_deep_field,
}
# Of the crops of each split: a seed of its own, so that held-out boxes are others than those trained on.
CROP_SEEDS = {"train": 5, "held": 4, "unseen": 6}


def lay_out(folder: Path) -> dict[str, int]:
    """Write the photographs to a folder for each split.

    `train` and `held` have views of the demo's photographs, one of each held out; `unseen` has views of others.

    Returns:
        The number of images of each split.
    """
    counts = dict.fromkeys(CROP_SEEDS, 0)

    def put(split: str, wnid: str, name: str, image: Image.Image) -> None:
        path = folder / split / wnid / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=92)
        counts[split] += 1

    for wnid, photographs in PHOTOGRAPHS.items():
        for name, load in photographs.items():
            for number, view in enumerate(cut_views(load(), VIEWS)):
                put("held" if number == HELD_OUT_VIEW else "train", wnid, f"{name}_{number}", view)
    for name, load in UNSEEN.items():
        pixels = np.asarray(load())  # type: ignore[no-untyped-call]
        pixels = np.stack([pixels] * 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
        for number, view in enumerate(cut_views(pixels, VIEWS)):
            put("unseen", "unseen", f"{name}_{number}", view)
    return counts
