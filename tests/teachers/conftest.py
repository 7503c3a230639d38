"""A teacher of one's own, in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

FACTORIES = """
import helper
import torch
from torch import nn

def plain():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, helper.WIDTH))

def with_settings():
    return plain(), {"input_size": 32, "mean": (0.1, 0.2, 0.3), "interpolation": "nearest"}

def with_attribute():
    model = plain()
    model.default_cfg = {"input_size": (3, 48, 48), "crop_pct": 1.0}
    return model

def lazy():
    import other_helper
    return plain()

def raises():
    raise ValueError("first line\\nsecond line")

def exits():
    raise SystemExit(3)

def number():
    return 5

def bad_settings():
    return plain(), {"std": (0, 1, 1)}

def odd_settings():
    return plain(), 224

constant = 3
"""


@pytest.fixture
def private_file(tmp_path: Path) -> Path:
    folder = tmp_path / "teachers"
    folder.mkdir()
    (folder / "mine.py").write_text(FACTORIES)
    (folder / "helper.py").write_text("WIDTH = 6\n")
    (folder / "other_helper.py").write_text("")
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "hungry.py").write_text("import a_package_that_is_not_here\n")
    return folder / "mine.py"
