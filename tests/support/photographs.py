"""Real photographs for tests, laid out once a session by the demo's own script."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

from support.paths import MODELS, TOOLS

TINY = f"{MODELS / 'tiny_teacher.py'}:tiny"
NAN = f"{MODELS / 'tiny_teacher.py'}:nan_for_bright"
LITE0 = f"{TOOLS / 'demo_teacher.py'}:lite0"


def tool(name: str) -> ModuleType:
    """A script of tools/, imported."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


def lay_out(folder: Path) -> Path:
    """36 JPEG photographs, about 500 pixels wide, in six class folders below folder/train."""
    with contextlib.redirect_stdout(io.StringIO()):
        tool("demo_photographs").main(folder)
    return folder
