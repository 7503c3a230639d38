"""Label sets -> one label set.

merge.py     pure: the records of one image in several sets -> one record
convert.py   pure: one record -> the same with fewer classes or another coding
parents.py   the sets that are merged: opened, found in by key, read in any order with bounded memory
checks.py    what must be the same in all of them
work.py      the worker loop: make the missing shards
fidelity.py  how far the merge is from the teachers themselves
command.py   the command and the call from Python
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slg_wds.ensembling.command import EnsembleResult as EnsembleResult
    from slg_wds.ensembling.command import ensemble as ensemble
    from slg_wds.ensembling.command import main as main

__all__ = ["EnsembleResult", "ensemble", "main"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("slg_wds.ensembling.command"), name)
