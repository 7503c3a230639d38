"""The options of every command: one frozen dataclass each, which is the command line and the Python API alike."""

from __future__ import annotations

from slg_wds.config.generate import (
    EvaluateConfig,
    GenerateConfig,
)
from slg_wds.config.looking import (
    InspectConfig,
    ReportConfig,
    VerifyConfig,
)
from slg_wds.config.sets import (
    EnsembleConfig,
    ExportConfig,
    ImportConfig,
)
from slg_wds.config.shared import (
    EngineConfig,
    Precision,
    SourceConfig,
    StoreConfig,
    TeacherConfig,
    Values,
    check_share,
    parse_store_options,
)

__all__ = [
    "EngineConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "ImportConfig",
    "InspectConfig",
    "Precision",
    "ReportConfig",
    "SourceConfig",
    "StoreConfig",
    "TeacherConfig",
    "Values",
    "VerifyConfig",
    "check_share",
    "parse_store_options",
]
