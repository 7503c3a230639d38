"""Probabilities -> top-k and tail; back to distributions; the sparse soft cross-entropy.

    shares.py            the weights of an average as shares that sum to 1
    reduce.py            torch: a teacher's probabilities -> top-k and the sum outside it
    soft.py, tails.py    torch: a batch's columns -> sparse distributions, mixed, dense
    logit_tables.py      torch: low-rank labels, which stay small until the loss needs them
    movable.py           torch: what moves to a device as one
    adaptation.py        torch: softened hard labels for crops of low confidence
    padding.py           torch: losses without the rows that are padding
    loss.py              torch: a student's cross-entropy with them
    embedding_loss.py    torch: a student's features against a teacher's embeddings
    dead_zone.py         rounding that prefers small integers
    low_rank/            distributions of an image's crops -> low-rank labels
    low_rank_embeddings/ the same for embeddings

Enters: a teacher's probabilities; the columns of records. Leaves: columns of records; distributions and losses.

The label types, the rules of recovery and their reference in numpy are in slg_wds.format.recovery; their names are
here too. Importing this package imports no torch: what is made of torch loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from slg_wds.format.recovery.distributions import distribution, largest, recover_over, stored_columns, top
from slg_wds.format.recovery.label_types import KINDS, LabelType, parse_label_type
from slg_wds.format.recovery.rules import StoredColumns
from slg_wds.labels.adaptation import LabelAdaptation

if TYPE_CHECKING:
    from slg_wds.labels.embedding_loss import EmbeddingLoss, RelationLoss
    from slg_wds.labels.loss import SoftCrossEntropy
    from slg_wds.labels.reduce import tail_sums, topk
    from slg_wds.labels.soft import SoftLabels, from_tables, from_topk, mix, recover
    from slg_wds.labels.tails import TailBatch, tail_batch

__all__ = [
    "KINDS",
    "EmbeddingLoss",
    "LabelAdaptation",
    "LabelType",
    "RelationLoss",
    "SoftCrossEntropy",
    "SoftLabels",
    "StoredColumns",
    "TailBatch",
    "distribution",
    "from_tables",
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
    "EmbeddingLoss": "embedding_loss",
    "RelationLoss": "embedding_loss",
    "SoftCrossEntropy": "loss",
    "SoftLabels": "soft",
    "TailBatch": "tails",
    "from_tables": "soft",
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
    found = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = found  # so that this is called once for each name, and not for every batch of a loader
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
