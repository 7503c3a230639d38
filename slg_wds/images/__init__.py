"""Images: what there is (a plan), their bytes, their pixels."""

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
