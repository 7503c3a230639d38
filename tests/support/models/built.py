"""Teachers made directly of a module, without a spec."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from slg_wds.teachers.built import BuiltModel
from slg_wds.teachers.preprocessing import Preprocessing
from slg_wds.teachers.teacher import Teacher


def teacher_of(module: nn.Module, preprocessing: Preprocessing, **settings: Any) -> Teacher:
    """A teacher on the CPU, in fp32 unless `settings` say otherwise."""
    defaults = {"precision": "fp32", "compile": False, "device": torch.device("cpu")}
    model = BuiltModel(module, "test", digest="", weights_from="")
    return Teacher(model, "private", preprocessing, "", **{**defaults, **settings})
