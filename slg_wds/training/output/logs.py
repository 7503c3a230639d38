"""Where the figures of each walk go: summary.csv, and by --log TensorBoard and Weights & Biases."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slg_wds.errors import MissingDependencyError, SlgWdsError
from slg_wds.store.whole_file import whole_file
from slg_wds.training.flags import Settings
from slg_wds.training.flags.args_file import without_secrets
from slg_wds.training.output.folder import SUMMARY
from slg_wds.training.state import Progress

MODULES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
WalkFigures = dict[str, float]  # `epoch` and `step` are among them
Log = Callable[[WalkFigures], None]


@contextlib.contextmanager
def open_logs(args: Settings, progress: Progress) -> Iterator[Log]:
    """Yield what takes the figures of a walk and gives them to every log; the first process alone writes.

    Args:
        args: the flags.
        progress: of the run, when it begins or goes on. What the logs have of later steps is forgotten.

    Raises:
        MissingDependencyError: what --log names is not installed.
        SlgWdsError: W&B cannot begin.
    """
    modules = {name: _imported(name) for name in MODULES if name in args.log}
    if args.rank:
        yield lambda figures: None
        return
    folder = Path(args.save_checkpoint_path)
    with contextlib.ExitStack() as stack:
        logs: list[Log] = [CsvLog(folder / SUMMARY, progress.last_logged)]
        if "tensorboard" in modules:
            writer = modules["tensorboard"].SummaryWriter(str(folder), purge_step=progress.last_logged + 1)
            logs.append(_tensorboard(stack.enter_context(contextlib.closing(writer))))
        if "wandb" in modules:
            logs.append(stack.enter_context(_wandb(modules["wandb"], args, progress)))

        def give_all(figures: WalkFigures) -> None:
            for log in logs:
                log(figures)

        yield give_all


class CsvLog:
    """A file of one row a walk, of all figures. It is written anew with each row, and so never holds half of one.

    Args:
        path: the file; if it exists, its rows are kept up to `step`.
        step: the last one that the run has logged.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows = [row for row in _rows_of(path) if int(row["step"]) <= step]

    def __call__(self, figures: WalkFigures) -> None:
        """Add a row.

        Raises:
            StoreError: the file cannot be written.
        """
        self.rows.append({name: _written(value) for name, value in figures.items()})
        text = io.StringIO()
        columns = dict.fromkeys(name for row in self.rows for name in row)
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with whole_file(self.path) as file:
            file.write(text.getvalue().encode())


def _written(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of an earlier summary; those of other programs, which have no steps, are none."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if (row.get("step") or "").isdigit()]


def _imported(name: str) -> Any:
    """Import what a log needs."""
    try:
        return importlib.import_module(MODULES[name])
    except ImportError:
        raise MissingDependencyError(f"--log {name} needs {name}", hint=f"pip install {name}") from None


def _tensorboard(writer: Any) -> Log:
    def log(figures: WalkFigures) -> None:
        for name, value in figures.items():
            if name != "step":
                writer.add_scalar(name, value, int(figures["step"]))
        writer.flush()

    return log


@contextlib.contextmanager
def _wandb(wandb: Any, args: Settings, progress: Progress) -> Iterator[Log]:
    """Yield the log of a W&B run that a resumed training continues; W&B's own variables choose project and mode."""
    options = {
        "dir": args.save_checkpoint_path,
        "config": without_secrets(args.flags),
        "allow_val_change": True,
    }
    try:
        run = wandb.init(id=progress.run, resume="allow", **options)
    except Exception as error:  # of several kinds, without a common base in all versions
        text = " ".join(str(error).split())
        raise SlgWdsError(
            f"W&B cannot begin: {text}", hint="run `wandb login`, or set WANDB_MODE=offline"
        ) from None
    try:
        yield lambda figures: run.log(figures, step=int(figures["step"]))
    finally:
        run.finish()
