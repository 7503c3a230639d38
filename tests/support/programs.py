"""Programs in this process: those of tools/, imported, and commands of `slg-wds`."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from support.paths import TOOLS


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


def made_here(command: list[str]) -> None:
    """Run `slg-wds` with the arguments of a command line that would start it as a process; it must succeed."""
    from slg_wds.cli import main

    assert main(command[command.index("slg_wds") + 1 :]) == 0
