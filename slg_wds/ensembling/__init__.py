"""Label sets -> one label set: `slg-wds ensemble`.

    command.py     the command and the call from Python
    description.py what the merged set is: format, plan, identity, provenance
    work.py        the worker loop, and the shards that it makes
    records.py     the records of one image in several sets -> the merged one
    parents.py     the sets to merge, each with its share of the mean
    checks.py      what must be the same in all of them
    merge.py       the labels of one image in several sets -> their weighted mean
    convert.py     the labels of one image -> the same with fewer classes
    embeddings.py  sets of embeddings -> one, which holds all of them side by side
    prototypes.py  a set of embeddings read as labels, by a bank
    low_rank.py    the mean of labels, coded as low-rank ones
    fidelity.py    how far labels are from the teachers themselves

Enters: the options, label sets of the same images and crops. Leaves: committed shards of a merged label set. It may
import `engines/` and every folder below that, and for --check `verification/answers/`.
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
