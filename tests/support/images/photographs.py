"""Real photographs for tests, laid out once a session as the demo does it."""

from __future__ import annotations

from pathlib import Path


def lay_out(folder: Path) -> Path:
    """36 JPEG photographs, about 500 pixels wide, in six class folders below folder/train."""
    from slg_wds.demo.photographs import write_photographs

    write_photographs(folder / "train")
    return folder
