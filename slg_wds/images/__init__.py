"""Images: the list of them (a plan), their bytes and their pixels.

    source.py         a URL -> a source: a folder of images, or tars
    folder.py         class folders or a flat folder, listed through tree.py (what lies below a folder, local or remote)
    tars/             WebDataset tars
    lists.py          the images that a list file selects
    order.py          paths -> keys, the shuffled order, shards
    classes.py        class folders -> class numbers
    class_folders.py  what a student's checkpoint says of them
    targets.py        class numbers -> the teacher's classes, and a subset of them
    header.py         format and size of an image from its first bytes
    pixels.py         bytes -> pixels; with depth.py for grey levels of more than 8 bits
    planned.py        images of a plan, read and decoded ahead in threads
    pairing.py        plans of images to learn from and to test on, with the same class numbers
    labelled.py       checks that a file is the image that was labelled
    gone.py           tells a file that is gone from a disk or bucket that is gone

Enters: URLs and options; later paths of the plan. Leaves: a `Plan`, the bytes of images, uint8 pixels [3, H, W]. May
import format/ (plans, keys, names), store/, config, files, console and errors.
"""

from __future__ import annotations

from slg_wds.images.classes import imagenet_targets, read_class_map
from slg_wds.images.folder import FolderSource
from slg_wds.images.header import MAX_PIXELS, image_extension, image_size
from slg_wds.images.labelled import LabelledImage
from slg_wds.images.pixels import decode, reencode
from slg_wds.images.source import ImageSource, open_source
from slg_wds.images.tars.source import ShardSource

__all__ = [
    "MAX_PIXELS",
    "FolderSource",
    "ImageSource",
    "LabelledImage",
    "ShardSource",
    "decode",
    "image_extension",
    "image_size",
    "imagenet_targets",
    "open_source",
    "read_class_map",
    "reencode",
]
