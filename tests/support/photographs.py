"""Real photographs for tests, laid out once a session as the demo does it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from support.paths import MODELS, TOOLS

TINY = f"{MODELS / 'tiny_teacher.py'}:tiny"
NAN = f"{MODELS / 'tiny_teacher.py'}:nan_for_bright"
LITE0 = "slg_wds.demo.teacher:lite0"


def tool(name: str) -> ModuleType:
    """A script of tools/ or of one of its folders, imported; it may import those beside it."""
    (path,) = TOOLS.rglob(f"{name}.py")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


def lay_out(folder: Path) -> Path:
    """36 JPEG photographs, about 500 pixels wide, in six class folders below folder/train."""
    from slg_wds.demo.photographs import write_photographs

    write_photographs(folder / "train")
    return folder


def made_here(command: list[str]) -> None:
    """Run `slg-wds` with the arguments of a command line that would start it as a process; it must succeed."""
    from slg_wds.cli import main

    assert main(command[command.index("slg_wds") + 1 :]) == 0
