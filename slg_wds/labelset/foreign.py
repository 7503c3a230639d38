"""Recognise FKD's label files where a label set was expected."""

from __future__ import annotations

import itertools
from pathlib import Path

from slg_wds.errors import SlgWdsError
from slg_wds.files import open_regular
from slg_wds.images.tree import walk_files

MOST_FILES = 10_000  # of a folder that are looked at
EXTENSION = ".tar"


def holds_label_files(root: Path) -> bool:
    """Return whether the first *.tar below a local folder is a file of torch.save, as FKD's label files are."""
    try:
        paths = itertools.islice(walk_files(str(root)), MOST_FILES)
        first = next((path for path in paths if path.endswith(EXTENSION)), None)
        if first is None:
            return False
        with open_regular(root / first) as file:
            return file.read(4) == b"PK\x03\x04"
    except (OSError, SlgWdsError):  # the answer only chooses a hint
        return False
