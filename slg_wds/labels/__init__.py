"""Probabilities -> top-k and tail; back to distributions; the sparse soft cross-entropy.

types.py, rules.py   the names of label types; which rule of recovery stored columns can give
shares.py            the weights of an average as shares that sum to 1
dense.py             numpy: a record's columns -> distributions: the rule of recovery
reduce.py            torch: a teacher's probabilities -> top-k and the sum outside it
soft.py, tails.py    torch: a batch's columns -> sparse distributions, mixed, dense
movable.py           torch: what moves to a device as one
adaptation.py        torch: softened hard labels for crops of low confidence
loss.py              torch: a student's cross-entropy with them

Importing this package imports no torch: what is made of torch loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from slg_wds.labels.adaptation import LabelAdaptation
from slg_wds.labels.dense import RecordColumns, distribution, largest, recover_over, stored_columns, top
from slg_wds.labels.rules import StoredColumns
from slg_wds.labels.types import KINDS, LabelType, parse_label_type

if TYPE_CHECKING:
    from slg_wds.labels.loss import SoftCrossEntropy
    from slg_wds.labels.reduce import tail_sums, topk
    from slg_wds.labels.soft import SoftLabels, from_topk, mix, recover
    from slg_wds.labels.tails import TailBatch, tail_batch

__all__ = [
    "KINDS",
    "LabelAdaptation",
    "LabelType",
    "RecordColumns",
    "SoftCrossEntropy",
    "SoftLabels",
    "StoredColumns",
    "TailBatch",
    "distribution",
    "from_topk",
    "largest",
    "mix",
    "parse_label_type",
    "recover",
    "recover_over",
    "stored_columns",
    "tail_batch",
    "tail_sums",
    "top",
    "topk",
]

_LAZY = {
    "SoftCrossEntropy": "loss",
    "SoftLabels": "soft",
    "TailBatch": "tails",
    "from_topk": "soft",
    "mix": "soft",
    "tail_sums": "reduce",
    "recover": "soft",
    "tail_batch": "tails",
    "topk": "reduce",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
