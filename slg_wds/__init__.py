"""Soft labels of strong teachers for many crops of every image, as WebDataset shards.

Names are loaded when first used: importing the package costs no torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing's own costs every command 20 ms before `__main__.run` can handle Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from slg_wds.config import EnsembleConfig as EnsembleConfig
    from slg_wds.config import EvaluateConfig as EvaluateConfig
    from slg_wds.config import ExportConfig as ExportConfig
    from slg_wds.config import GenerateConfig as GenerateConfig
    from slg_wds.config import ImportConfig as ImportConfig
    from slg_wds.ensembling import ensemble as ensemble
    from slg_wds.errors import SlgWdsError as SlgWdsError
    from slg_wds.format.records.record import Record as Record
    from slg_wds.generation.command import generate as generate
    from slg_wds.generation.evaluation import evaluate as evaluate
    from slg_wds.generation.evaluation import evaluate_embeddings as evaluate_embeddings
    from slg_wds.interop.fkd.exporting import export_fkd as export_fkd
    from slg_wds.interop.fkd.importing import import_fkd as import_fkd
    from slg_wds.labels import EmbeddingLoss as EmbeddingLoss
    from slg_wds.labels import RelationLoss as RelationLoss
    from slg_wds.labels import SoftCrossEntropy as SoftCrossEntropy
    from slg_wds.labels import recover as recover
    from slg_wds.labelset.labelset import LabelSet as LabelSet
    from slg_wds.labelset.opening import open_labels as open_labels
    from slg_wds.replay.loader import SoftLabelLoader as SoftLabelLoader

_HOMES = {
    "EmbeddingLoss": "labels",
    "EnsembleConfig": "config",
    "EvaluateConfig": "config",
    "ExportConfig": "config",
    "GenerateConfig": "config",
    "ImportConfig": "config",
    "LabelSet": "labelset.labelset",
    "Record": "format.records.record",
    "RelationLoss": "labels",
    "SlgWdsError": "errors",
    "SoftCrossEntropy": "labels",
    "SoftLabelLoader": "replay.loader",
    "ensemble": "ensembling",
    "evaluate": "generation.evaluation",
    "evaluate_embeddings": "generation.evaluation",
    "export_fkd": "interop.fkd.exporting",
    "generate": "generation.command",
    "import_fkd": "interop.fkd.importing",
    "open_labels": "labelset.opening",
    "recover": "labels",
}
__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'slg_wds' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"slg_wds.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
