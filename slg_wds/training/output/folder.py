"""The folder of a training. What another training left in it is never overwritten."""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from slg_wds.errors import SlgWdsError, UsageError
from slg_wds.files import folder_fault
from slg_wds.training.flags import Settings
from slg_wds.training.flags.args_file import ARGS_FILE, write_args
from slg_wds.training.processes import summed

CHECKPOINT, BEST = "checkpoint.pth.tar", "model_best.pth.tar"  # FKD's names
SUMMARY = "summary.csv"  # timm's name
FILES = (CHECKPOINT, BEST, SUMMARY, ARGS_FILE)


def refuse_another_training(args: Settings) -> None:
    """Refuse a folder that holds a training with which this run does not go on.

    All processes call it together, before any of them writes. The first one looks, so that all end alike.

    Raises:
        UsageError: the folder holds a training.
    """
    found = args.rank == 0 and bool(held(args)) and not _goes_on(args)
    if not summed(torch.tensor([float(found)], device=args.device))[0]:
        return
    raise UsageError(
        "the folder of --save_checkpoint_path holds a training, which this one would overwrite",
        url=args.save_checkpoint_path,
        hint=f"{_way_on(args)}; for a new training choose another --save_checkpoint_path or remove this folder",
    )


def held(args: Settings) -> list[str]:
    """Return the names of a training's files that the folder has."""
    return [name for name in FILES if os.path.lexists(Path(args.save_checkpoint_path) / name)]


def _goes_on(args: Settings) -> bool:
    """Return whether the run goes on with what is in the folder, or with a training that has no checkpoint yet."""
    if args.resume == "auto":
        return CHECKPOINT in held(args) or BEST not in held(args)
    folder = Path(args.save_checkpoint_path).resolve()
    return bool(args.resume) and Path(args.resume).parent.resolve() == folder


def _way_on(args: Settings) -> str:
    """Say how to go on with what is in the folder."""
    names = held(args)
    if CHECKPOINT in names:
        return "--resume auto goes on with it"
    if BEST in names:
        best = shlex.quote(str(Path(args.save_checkpoint_path) / BEST))
        return f"--resume {best} goes on from its best student"
    return "it has no checkpoint, and --resume auto starts it anew"


def make_folder(args: Settings) -> None:
    """Make the folder and try to write there, before the first step.

    Raises:
        SlgWdsError: it cannot be written to.
    """
    folder = Path(args.save_checkpoint_path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SlgWdsError(
            f"checkpoints cannot be written here: {folder_fault(error)}", url=str(folder)
        ) from None


@contextlib.contextmanager
def args_beside(args: Settings) -> Iterator[None]:
    """Write args.yaml, in the first process only. A training that fails before its first checkpoint takes it away.

    So the same command, mended, may use the folder, and a folder in which a training has just begun is refused.

    Raises:
        StoreError: it cannot be written.
    """
    folder = Path(args.save_checkpoint_path)
    if args.rank == 0:
        write_args(folder, args.flags)
    try:
        yield
    except BaseException:
        if args.rank == 0 and CHECKPOINT not in held(args):
            (folder / ARGS_FILE).unlink(missing_ok=True)
        raise
