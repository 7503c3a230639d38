"""What train_student.py keeps of a run, written so that a kill at any moment leaves the old one or the new one."""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slg_wds.console import tell
from slg_wds.errors import SlgWdsError, UsageError, WeightsError
from slg_wds.store.whole_file import whole_file

CHECKPOINT, BEST = "checkpoint.pth.tar", "model_best.pth.tar"  # FKD's names
# What changes the course of training: in the checkpoint, so that a resumed run can say what is different.
SETTINGS = (
    *(
        "seed",
        "epochs",
        "batch_size",
        "num_crops",
        "lr",
        "schedule",
        "cos",
        "warmup",
        "momentum",
        "weight_decay",
    ),
    *(
        "opt",
        "temp",
        "soft_label_type",
        "mixup_cutmix",
        "mixup",
        "cutmix",
        "mixup_cutmix_prob",
        "mixup_switch_prob",
    ),
    *("ema", "amp", "label_weights", "crop_filter"),
)


@dataclass
class Progress:
    """How far training is: what a checkpoint holds besides weights, and what the printed figures come from."""

    epoch: int = 0  # the first of the walk that is under way or comes next
    step: int = 0  # steps taken
    loader: dict[str, Any] | None = None  # its state inside that walk, None at its begin
    seconds: float = 0.0  # of training, validation left out
    best: float = -math.inf
    reached: float = 0.0  # seconds at --target-accuracy, 0: not yet


@dataclass
class Training:
    """All that one step changes. `net` is `model` inside DDP and compile."""

    model: nn.Module
    net: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)


def prepare(args: argparse.Namespace) -> None:
    """Find out before the first step whether checkpoints can be written."""
    folder = Path(args.save_checkpoint_path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SlgWdsError(f"checkpoints cannot be written here: {error.strerror}", url=str(folder)) from None


def save(args: argparse.Namespace, training: Training, best: bool = False) -> None:
    """Write the checkpoint in one step, through links: a kill at any moment leaves the old one or the new one."""
    if args.rank:
        return
    progress = training.progress
    content = {
        "epoch": progress.epoch,
        "arch": args.arch,
        "state_dict": training.model.state_dict(),
        "best_acc1": progress.best,
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "ema": None if training.average is None else training.average.state_dict(),
        "progress": asdict(progress),
        "num_classes": args.num_classes,
        "settings": {name: getattr(args, name) for name in SETTINGS},
    }
    folder = Path(args.save_checkpoint_path)
    try:
        for name in (CHECKPOINT, BEST) if best else (CHECKPOINT,):
            with whole_file(folder / name) as file:
                torch.save(content, file)
    except RuntimeError as error:  # what torch raises on a full disk
        raise SlgWdsError(f"the checkpoint cannot be written: {error}", url=str(folder)) from None


def read_checkpoint(args: argparse.Namespace) -> dict[str, Any] | None:
    """The checkpoint of --resume, None where there is nothing to resume. Nothing in it is executed."""
    path = Path(args.resume)
    if args.resume == "auto":
        path = Path(args.save_checkpoint_path) / CHECKPOINT
    if not args.resume or (args.resume == "auto" and not path.exists()):
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, dict) or "state_dict" not in found:
            raise ValueError("no state_dict in it")
    except Exception as error:  # torch.load raises nearly anything on bad bytes
        text = str(error).split("\n")[0]
        raise WeightsError(
            f"the checkpoint cannot be read: {text or type(error).__name__}", url=str(path)
        ) from None
    return found


def restore(args: argparse.Namespace, training: Training, found: dict[str, Any]) -> None:
    """Take weights and, to train on, optimizer, scaler, average and place from a checkpoint of ours or of FKD."""
    weights = {
        re.sub(r"^(module\.|_orig_mod\.)+", "", name): value for name, value in found["state_dict"].items()
    }
    try:
        training.model.load_state_dict(weights)
        if training.average is not None:
            training.average.load_state_dict(found.get("ema") or weights)
        if args.evaluate:
            return
        training.optimizer.load_state_dict(found["optimizer"])
        training.scaler.load_state_dict(found.get("scaler") or training.scaler.state_dict())
    except (RuntimeError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())[:200]
        raise WeightsError(
            f"the checkpoint is not one of {args.arch} with --opt {args.opt}: {text}"
        ) from None
    training.progress = Progress(**found.get("progress", {"epoch": int(found.get("epoch", 0))}))
    then = found.get("settings", {})
    changed = [
        f"{name} {then[name]} -> {getattr(args, name)}" for name in then if then[name] != getattr(args, name)
    ]
    if then and then["seed"] != args.seed:
        raise UsageError(f"the checkpoint is of --seed {then['seed']}, not {args.seed}")
    say(args, f"resumed at epoch {training.progress.epoch}, step {training.progress.step:,}"
        + (f"; changed: {', '.join(changed)}" if changed else ""))  # fmt: skip


def say(args: argparse.Namespace, text: str) -> None:
    if args.rank == 0:
        tell(text)
