"""What a run keeps, and how it resumes. A kill at any moment leaves the old checkpoint or the new one, both whole."""

from __future__ import annotations

import pickle
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slg_wds.errors import ReplayError, SlgWdsError, UsageError, WeightsError
from slg_wds.files import reason_of
from slg_wds.store.whole_file import whole_file
from slg_wds.training.distiller import Distiller
from slg_wds.training.faults import run_faults
from slg_wds.training.flags import Settings
from slg_wds.training.optimizer import keep_options
from slg_wds.training.output.folder import BEST, CHECKPOINT
from slg_wds.training.processes import say
from slg_wds.training.state import IF_NOT_FINITE, Progress, Training

if TYPE_CHECKING:
    from slg_wds.replay.device import DeviceLoader

# The flags that change the course of training. A checkpoint has them, so that a resumed run can name differences.
SETTINGS = (
    "seed", "epochs", "batch_size", "num_crops", "lr", "schedule", "cos", "warmup", "momentum", "weight_decay", "opt",
    "opt_kwargs", "filter_bias_and_bn", "fused", "clip_grad", "clip_mode", "grad_accum_steps", "sched", "sched_kwargs",
    "warmup_epochs", "warmup_lr", "min_lr", "drop_path", "model_kwargs", "temp", "soft_label_type", "mixup_cutmix",
    "mixup", "cutmix", "mixup_cutmix_prob", "mixup_switch_prob", "ema", "amp", "label_weights", "crop_filter",
    "label_temp", "label_temp_end", "size", "interpolation", "distill", "embedding_loss", "embedding_norm",
)  # fmt: skip
MAPPINGS = {"state_dict", "optimizer", "progress", "settings"}  # parts of a checkpoint that are mappings


def save(args: Settings, training: Training, best: bool = False) -> None:
    """Write the checkpoint, in the first process only; if `best`, also as the best one.

    Raises:
        SlgWdsError: the weights are not finite, or it cannot be written, for example because the disk is full.
    """
    # All processes have these weights, so all end here, and the last good checkpoint stays.
    if not is_finite(training.model):
        raise SlgWdsError(
            f"the student has weights that are not finite after step {training.progress.step}; they are not kept",
            hint=IF_NOT_FINITE,
        )
    if args.rank:
        return
    content, folder = content_of(args, training), Path(args.save_checkpoint_path)
    try:
        # The best one first: a run that is killed in between goes on from the older checkpoint, and finds it again.
        for name in (BEST, CHECKPOINT) if best else (CHECKPOINT,):
            with run_faults(args), whole_file(folder / name) as file:
                torch.save(content, file)
    except RuntimeError as error:
        # On a full disk torch complains that it cannot close its file; the error of the disk is the one before that.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise SlgWdsError(f"the checkpoint cannot be written: {reason_of(cause)}", url=str(folder)) from None


def content_of(args: Settings, training: Training) -> dict[str, Any]:
    """Return what a checkpoint holds, FKD's names first."""
    progress = training.progress
    average = None if training.average is None else states(training.average.module)
    return {
        "epoch": progress.epoch,
        "arch": args.arch,
        **states(training.model),
        "best_acc1": progress.best,
        "optimizer": training.optimizer.state_dict(),
        "scaler": training.scaler.state_dict(),
        "ema": None if average is None else average["state_dict"],
        "ema_projectors": None if average is None else average["projectors"],
        "progress": asdict(progress),
        "num_classes": args.num_classes,
        "logit_scale": args.logit_scale,
        "class_folders": training.folders.kept(),
        "preprocessing": training.preprocessing.identity(),
        "settings": settings_of(args, training),
    }


def is_finite(model: nn.Module) -> bool:
    """Return whether all weights are finite. Buffers may be infinite on purpose, as masks are."""
    return all(bool(one.isfinite().all()) for one in model.parameters())


def states(model: nn.Module) -> dict[str, Any]:
    """Return the weights of the student alone, and those of its projectors by their teachers' names, None without."""
    if not isinstance(model, Distiller):
        return {"state_dict": model.state_dict(), "projectors": None}
    return {"state_dict": model.backbone.state_dict(), "projectors": model.projector_states()}


def load_states(model: nn.Module, student: dict[str, Any], projectors: dict[str, Any] | None) -> None:
    """Load what `states` returned. Raises RuntimeError if it is of another model."""
    if not isinstance(model, Distiller):
        model.load_state_dict(student)
        return
    model.backbone.load_state_dict(student)
    model.load_projectors(projectors or {})


def read_checkpoint(args: Settings) -> dict[str, Any] | None:
    """Read the checkpoint of --resume; None if there is nothing to resume. Nothing in the file is executed.

    Raises:
        WeightsError: it cannot be read, or is none.
    """
    path = Path(args.resume)
    if args.resume == "auto":
        path = Path(args.save_checkpoint_path) / CHECKPOINT
    if not args.resume or (args.resume == "auto" and not path.exists()):
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(found, dict) or "state_dict" not in found:
            raise ValueError("no state_dict in it")
        for name in MAPPINGS & found.keys():
            if not isinstance(found[name], dict):
                raise ValueError(f"its {name} is no mapping")
    except Exception as error:  # torch.load raises nearly anything on bad bytes
        text = str(error).split("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's text says how to run code in the file
            text = "it is damaged or more than weights; nothing of it was run"
        raise WeightsError(
            f"the checkpoint cannot be read: {text or type(error).__name__}", url=str(path)
        ) from None
    return found


def restore(args: Settings, training: Training, found: dict[str, Any]) -> None:
    """Load a checkpoint of ours or of FKD: weights, average and progress; to train on also optimizer and scaler.

    Args:
        args: the flags.
        training: takes what is loaded.
        found: the checkpoint.

    Raises:
        WeightsError: it is of another model or optimizer.
        UsageError: it is of another --seed, or of another --distill.
    """
    distilled = found.get("projectors") is not None
    if distilled != isinstance(training.model, Distiller):
        raise UsageError(f"the checkpoint is of --distill {'embedding' if distilled else 'labels'}")
    weights = {
        re.sub(r"^(module\.|_orig_mod\.)+", "", str(name)): one for name, one in found["state_dict"].items()
    }
    try:
        with run_faults(args):
            _load(args, training, weights, found)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        text = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise WeightsError(
            f"the checkpoint is not one of {args.arch} with --opt {args.opt}: {text}"
        ) from None
    seed = found.get("settings", {}).get("seed", args.seed)
    if not args.evaluate and seed != args.seed:
        raise UsageError(f"the checkpoint is of --seed {seed}, not {args.seed}")


def _load(args: Settings, training: Training, weights: dict[str, Tensor], found: dict[str, Any]) -> None:
    load_states(training.model, weights, found.get("projectors"))
    if training.average is not None:
        average = (found.get("ema") or weights, found.get("ema_projectors") or found.get("projectors"))
        load_states(training.average.module, *average)
    training.progress = Progress(**found.get("progress", {"epoch": int(found.get("epoch", 0))}))
    if args.evaluate:
        return
    training.optimizer.load_state_dict(keep_options(training.optimizer, found["optimizer"]))
    training.scaler.load_state_dict(found.get("scaler") or training.scaler.state_dict())


def settings_of(args: Settings, training: Training) -> dict[str, Any]:
    """Return all that decides the course of training, by name: flags, and the label sets, which a flag only locates."""
    return {**flags_of(args), "label_sets": training.sets}


def flags_of(args: Settings) -> dict[str, Any]:
    """Return the flags that change the course of training, by name."""
    return {name: getattr(args, name) for name in SETTINGS}


def place_of(found: dict[str, Any] | None) -> str:
    """Say of which moment of which run a checkpoint is."""
    if found is None:
        return "none"
    progress = found.get("progress") or {}
    return f"of epoch {found.get('epoch', 0)}, step {progress.get('step', 0)}, run {progress.get('run', 'unknown')}"


def go_on(args: Settings, training: Training, found: dict[str, Any], walk: DeviceLoader) -> None:
    """Move a walk to where the checkpoint left it. A checkpoint of a walk's end changes nothing.

    Raises:
        UsageError: an option that decides the batches of a walk has changed since this one began.
    """
    if training.progress.loader is None:
        return
    try:
        walk.load_state_dict(training.progress.loader)
    except ReplayError as error:
        changed = ", ".join(changes(args, training, found)) or error.message
        raise UsageError(
            f"the checkpoint is in the middle of a walk, which can only go on as it began; changed: {changed}",
            hint=f"change it at a walk's end: {BEST} is of one, if there is one",
        ) from None


def changes(args: Settings, training: Training, found: dict[str, Any]) -> list[str]:
    """Say what differs from the run that left a checkpoint, as far as that says it."""
    then = found.get("settings", {})
    now = {name: value for name, value in settings_of(args, training).items() if name in then}
    return [f"{name} {then[name]} -> {value}" for name, value in now.items() if then[name] != value]


def tell_resumed(args: Settings, training: Training, found: dict[str, Any]) -> None:
    """Print where the run goes on, and what differs from the run before."""
    progress, changed = training.progress, ", ".join(changes(args, training, found))
    say(args, f"resumed at epoch {progress.epoch}, step {progress.step:,}"
        + (f"; changed: {changed}" if changed else ""))  # fmt: skip
