"""The original FKD's label files: their bytes, their boxes, and folders of them."""

from __future__ import annotations

from slg_wds.interop.fkd.boxes import CutBoxes, cut_boxes, exact_coords, relative
from slg_wds.interop.fkd.files import FkdLabels, encode_label_file, read_label_file
from slg_wds.interop.fkd.folder import LabelFolder, open_label_folder, stem_of, stem_of_key

__all__ = [
    "CutBoxes",
    "FkdLabels",
    "LabelFolder",
    "cut_boxes",
    "encode_label_file",
    "exact_coords",
    "open_label_folder",
    "read_label_file",
    "relative",
    "stem_of",
    "stem_of_key",
]
