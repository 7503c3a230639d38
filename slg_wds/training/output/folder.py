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
from slg_wds.store.whole_file import whole_file
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

    All processes call it together, and all end alike. Only the first one writes: other machines may see no such folder,
    or may not write to it.

    Raises:
        SlgWdsError: it cannot be written to.
    """
    fault = "" if args.rank else _fault(Path(args.save_checkpoint_path))
    if summed(torch.tensor([float(bool(fault))], device=args.device))[0]:
        raise SlgWdsError(
            f"checkpoints cannot be written here: {fault or 'process 0 says why'}",
            url=args.save_checkpoint_path,
        )


def _fault(folder: Path) -> str:
    """Return why a folder cannot be made or written to; "" if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return folder_fault(error)


@contextlib.contextmanager
def args_beside(args: Settings) -> Iterator[None]:
    """Write args.yaml, in the first process only. A run that fails before it saves a student leaves files as they were.

    So the same command, mended, may use a new folder, a folder in which a training has just begun is refused, and
    args.yaml and summary.csv are of the checkpoint beside them.

    Raises:
        StoreError: it cannot be written.
    """
    if args.rank:
        yield
        return
    folder = Path(args.save_checkpoint_path)
    before, students = {name: _content(folder / name) for name in (ARGS_FILE, SUMMARY)}, _students(folder)
    write_args(folder, args.flags)
    try:
        yield
    except BaseException:
        if _students(folder) == students:
            for name, content in before.items():
                _put_back(folder / name, content)
        raise


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _students(folder: Path) -> list[tuple[int, int]]:
    """Return by what a student that is saved anew is told from the one before."""
    found = [folder / name for name in (CHECKPOINT, BEST) if (folder / name).exists()]
    return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in found]


def _put_back(path: Path, content: bytes | None) -> None:
    """Give a file its old content; None removes it."""
    with contextlib.suppress(OSError, SlgWdsError):  # the error that ended the run is the one to tell
        if content is None:
            path.unlink(missing_ok=True)
        elif content != path.read_bytes():
            with whole_file(path) as file:
                file.write(content)
