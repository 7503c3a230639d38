"""Lay out the photographs that the scikit-image and scikit-learn wheels carry as an image folder.

usage: demo_photographs.py FOLDER

Each photograph gives a few overlapping views of 3/4 of its sides, as JPEG files in folders named by the WordNet id of
what it shows, so that the labels of an ImageNet teacher can be compared with them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image

PHOTOGRAPHS = {
    "n02123045": {"chelsea": skimage.data.chelsea},  # tabby
    "n07920052": {"coffee": skimage.data.coffee},  # espresso
    "n04266014": {"rocket": skimage.data.rocket},  # space shuttle, the nearest class to a rocket
    "n03785016": {"motorcycle": lambda: skimage.data.stereo_motorcycle()[0]},  # moped
    "n03877845": {"china": lambda: load_sample_image("china.jpg")},  # palace
    "n11939491": {"flower": lambda: load_sample_image("flower.jpg")},  # daisy, the nearest class to a dahlia
}
VIEWS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
LONG_SIDE = 500


def main(folder: Path) -> None:
    count = 0
    for wnid, photographs in PHOTOGRAPHS.items():
        for name, load in photographs.items():
            for number, view in enumerate(views(np.asarray(load())[..., :3])):
                path = folder / "train" / wnid / f"{name}_{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                view.save(path, quality=92)
                count += 1
    print(f"{count} images of {len(PHOTOGRAPHS)} classes in {folder / 'train'}")


def views(pixels: np.ndarray) -> list[Image.Image]:
    """The photograph itself and overlapping parts of it, the long side at most LONG_SIDE pixels."""
    height, width = pixels.shape[0] * 3 // 4, pixels.shape[1] * 3 // 4
    parts = [pixels]
    for down, right in VIEWS:
        top, left = int(down * (pixels.shape[0] - height)), int(right * (pixels.shape[1] - width))
        parts.append(pixels[top : top + height, left : left + width])
    images = [Image.fromarray(np.ascontiguousarray(part)) for part in parts]
    for image in images:
        image.thumbnail((LONG_SIDE, LONG_SIDE))
    return images


if __name__ == "__main__":
    main(Path(sys.argv[1]))
