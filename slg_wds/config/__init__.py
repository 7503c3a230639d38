"""The options of every command: one frozen dataclass each, for the command line and for Python.

    shared.py        options that several commands share
    generate.py, conversion.py, inspection.py, prototypes.py, demo.py    the options of each command
    training.py      defaults of `slg-wds train`, whose flags are in training/flags/
    checks.py        which values make sense, alone and together
    arguments.py     the arguments of a command line -> options
    command_line.py  how options are shown: --help, completion

Enters: the arguments of a command, or keywords from Python. Leaves: a config, whose `check` refuses values that make
no sense. The folder imports errors, masking, concurrency's count of cores and, once a URL is opened, store; no torch.
"""

from __future__ import annotations

from slg_wds.config.conversion import (
    EnsembleConfig,
    ExportConfig,
    ImportConfig,
)
from slg_wds.config.demo import DemoConfig
from slg_wds.config.generate import (
    EvaluateConfig,
    GenerateConfig,
)
from slg_wds.config.inspection import (
    InspectConfig,
    ReportConfig,
    VerifyConfig,
)
from slg_wds.config.prototypes import PrototypesConfig
from slg_wds.config.shared import (
    EngineConfig,
    Precision,
    SourceConfig,
    StoreConfig,
    TeacherConfig,
    Values,
    parse_store_options,
)
from slg_wds.config.training import SOFTLABEL_PATH, flags_that_fit

__all__ = [
    "SOFTLABEL_PATH",
    "DemoConfig",
    "EngineConfig",
    "EnsembleConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GenerateConfig",
    "ImportConfig",
    "InspectConfig",
    "Precision",
    "PrototypesConfig",
    "ReportConfig",
    "SourceConfig",
    "StoreConfig",
    "TeacherConfig",
    "Values",
    "VerifyConfig",
    "flags_that_fit",
    "parse_store_options",
]
