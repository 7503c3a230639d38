"""The lines that a run prints, and its clock."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from slg_wds.errors import SlgWdsError
from slg_wds.training.checkpoints import Training
from slg_wds.training.flags import Settings
from slg_wds.training.processes import say


class Meter:
    """Loss and speed since the last line. The loss stays on the device until it is shown."""

    def __init__(self, args: Settings) -> None:
        self.args, self.begin, self.start = args, time.monotonic(), time.monotonic()
        self.loss, self.steps, self.crops = torch.zeros((), device=args.device), 0, 0

    def add(self, loss: Tensor, crops: int) -> None:
        """Count a step on a batch of `crops` crops of this process."""
        self.loss += loss.float()
        self.steps += 1
        self.crops += crops * self.args.ranks

    def show(self, epoch: int, training: Training, steps: int) -> float:
        """Print a line and return the seconds since the last call of `lap` or `show`.

        Args:
            epoch: first epoch of the walk.
            training: its loader state says how many batches of the walk are done.
            steps: batches of the whole walk.

        Raises:
            SlgWdsError: the loss is not finite.
        """
        loss = self.loss.item() / self.steps  # waits for the device, so the time is that of finished steps
        speed = self.crops / (time.monotonic() - self.start)
        done = (training.progress.loader or {}).get("batches", 0)
        rate = training.optimizer.param_groups[0]["lr"]
        say(self.args, f"epoch {epoch} [{done}/{steps}] loss {loss:.4f} lr {rate:.5f} {speed:,.0f} images/s")
        if not math.isfinite(loss):
            raise SlgWdsError(
                f"the loss is {loss} at step {training.progress.step}", hint="lower --lr or --amp off"
            )
        self.loss.zero_()
        self.steps = self.crops = 0
        self.start = time.monotonic()
        return self.lap()

    def lap(self) -> float:
        """Return the seconds since the last call of `lap` or `show`."""
        seconds, self.begin = time.monotonic() - self.begin, time.monotonic()
        return seconds
