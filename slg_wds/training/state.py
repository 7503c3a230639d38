"""The state of a training: what its steps change, and how far it is."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from slg_wds.images.class_folders import ClassFolders
from slg_wds.teachers import Preprocessing

IF_NOT_FINITE = "lower --lr or --amp off"  # the hint where losses or weights are not


@dataclass
class Progress:
    """How far a run is; a checkpoint has it beside the weights.

    Attributes:
        epoch: first epoch of the current walk, or of the next one.
        step: steps taken.
        loader: the loader's state within the walk; None at its start.
        seconds: time of training, without validation.
        best: the best percentage of a validation.
        reached: `seconds` when --target-accuracy was reached; 0 before.
        walk: what the meter counted of the current walk, or of the last one.
        run: a name of the run, at random, by which W&B knows it again.
    """

    epoch: int = 0
    step: int = 0
    loader: dict[str, Any] | None = None
    seconds: float = 0.0
    best: float = -math.inf
    reached: float = 0.0
    walk: dict[str, float] = field(default_factory=dict)
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def batches(self) -> int:
        """Batches of the current walk that are done."""
        return 0 if self.loader is None else int(self.loader["batches"])

    @property
    def last_logged(self) -> int:
        """The last step that a log may have. That of a walk's end is logged when the walk has been validated."""
        return self.step if self.loader is None else self.step - 1


@dataclass
class Training:
    """All that a step changes.

    Attributes:
        model: the student.
        net: the same, wrapped for several processes and compiled: what a step calls.
        average: the moving average of its weights; None without --ema.
        optimizer: of the student's weights.
        scaler: of the loss; it does nothing unless --amp is fp16.
        preprocessing: how the student is shown images.
        progress: how far the run is.
        folders: which class folders are which of the student's classes.
        sets: the digest of the label sets that it learns from, as `digest_of` gives it.
        steps: of the whole training.
    """

    model: nn.Module
    net: nn.Module
    average: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    preprocessing: Preprocessing
    progress: Progress = field(default_factory=Progress)
    folders: ClassFolders = field(default_factory=ClassFolders)
    sets: str = ""
    steps: int = 0
