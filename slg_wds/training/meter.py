"""The lines that a run prints, its clock, and what it counts of a walk: loss, speed, and waiting for the loader."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from slg_wds.console import duration
from slg_wds.errors import SlgWdsError
from slg_wds.training.flags import Settings
from slg_wds.training.processes import say, summed
from slg_wds.training.state import IF_NOT_FINITE, Training

if TYPE_CHECKING:
    from slg_wds.replay.batch import Batch


class Reading(NamedTuple):
    """What the meter of one process shows.

    Attributes:
        loss: sum over the steps.
        steps: steps.
        crops: crops of all processes.
        waited: seconds in which the process waited for a batch.
        seconds: seconds since the meter began.
    """

    loss: float = 0.0
    steps: int = 0
    crops: int = 0
    waited: float = 0.0
    seconds: float = 0.0


class Meter:
    """Counts what is left of a walk, and adds it to what a checkpoint says of the walk's beginning.

    The loss stays on the device until it is shown. A step on a GPU is only begun when the loop asks for the next batch,
    so some of the waiting may be hidden behind the GPU's work: the speed is what counts.

    Args:
        args: the flags.
        training: its progress takes the counts.
    """

    def __init__(self, args: Settings, training: Training) -> None:
        self.args, self.training, self.begin = args, training, time.monotonic()
        self.loss = torch.zeros((), dtype=torch.float64, device=args.device)
        self.steps, self.crops, self.waited = 0, 0, 0.0
        self.shown = Reading()
        self.seconds_before, self.walk_before = training.progress.seconds, training.progress.walk

    def batches(self, walk: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches of a walk, and count the time in which they are waited for."""
        asked = time.monotonic()
        for batch in walk:
            self.waited += time.monotonic() - asked
            yield batch
            asked = time.monotonic()

    def add(self, loss: Tensor, crops: int) -> None:
        """Count a step on a batch of `crops` crops of this process."""
        self.loss += loss
        self.steps += 1
        self.crops += crops * self.args.ranks

    def read(self) -> Reading:
        """Return what was counted; it waits for the device, so the time is that of finished steps."""
        loss = self.loss.item()
        return Reading(loss, self.steps, self.crops, self.waited, time.monotonic() - self.begin)

    def show(self, epoch: int, steps: int) -> None:
        """Print a line about the steps since the last one, and how long the rest takes at their speed, but validations.

        Args:
            epoch: first epoch of the walk.
            steps: batches of the whole walk.

        Raises:
            SlgWdsError: the loss is not finite.
        """
        now, then = self.read(), self.shown
        loss, seconds = (now.loss - then.loss) / (now.steps - then.steps), now.seconds - then.seconds
        speed, waited = (now.crops - then.crops) / seconds, (now.waited - then.waited) / seconds
        progress, rate = self.training.progress, self.training.optimizer.param_groups[0]["lr"]
        left = duration((self.training.steps - progress.step) * seconds / (now.steps - then.steps))
        say(self.args, f"epoch {epoch} [{progress.batches}/{steps}] loss {loss:.4f} lr {rate:.5f} {speed:,.0f} "
            f"crops/s, {waited:.1%} of the time waiting for the loader, about {left} left")  # fmt: skip
        if not math.isfinite(loss):
            raise SlgWdsError(f"the loss is {loss} at step {progress.step}", hint=IF_NOT_FINITE)
        self.shown = now

    def count(self) -> None:
        """Bring the run's progress up to date, for a checkpoint; all processes call it together."""
        now, progress = self.read(), self.training.progress
        loss, waited = summed(
            torch.tensor([now.loss, now.waited], dtype=torch.float64, device=self.args.device)
        )
        counted = {
            "loss": loss / self.args.ranks,
            "steps": now.steps,
            "crops": now.crops,
            "waited": waited / self.args.ranks,
            "seconds": now.seconds,
        }
        progress.seconds = self.seconds_before + now.seconds
        progress.walk = {name: value + self.walk_before.get(name, 0) for name, value in counted.items()}


def figures_of(training: Training) -> dict[str, float]:
    """Return the figures of a walk that is done: mean loss, crops a second, share of the time waiting for the loader.

    They are means over all processes, also of a walk that was interrupted and resumed.
    """
    progress, walk = training.progress, training.progress.walk
    return {
        "epoch": progress.epoch,
        "step": progress.step,
        "train_loss": walk["loss"] / walk["steps"],
        "lr": training.optimizer.param_groups[0]["lr"],
        "crops_per_second": walk["crops"] / walk["seconds"],
        "loader_wait": walk["waited"] / walk["seconds"],
        "seconds": progress.seconds,
    }
