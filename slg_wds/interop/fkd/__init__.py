"""The label files of the original FKD.

    files.py       bytes of a label file <-> arrays
    boxes.py       relative coordinates <-> boxes in pixels
    columns.py     label arrays <-> columns of classes and probabilities
    folder.py      a folder of label files
    layout.py      where they lie in it, by the paths of their images
    matching.py    which label file belongs to which image
    conversion.py  the worker loop of an import
    importing.py   `slg-wds import`
    exporting.py   `slg-wds export`
    naming.py      the names under which readers look for label files

Enters: folders of label files, or a label set. Leaves: a label set, or label files.

Shapes: M crops, k classes stored per crop, C classes.
"""

from __future__ import annotations

from slg_wds.interop.fkd.boxes import LARGE, CutBoxes, cut_boxes, exact_coords, relative
from slg_wds.interop.fkd.files import FkdLabels, encode_label_file, read_label_file
from slg_wds.interop.fkd.folder import LabelFolder, open_label_folder, stem_of, stem_of_key

__all__ = [
    "LARGE",
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
