"""`tiny` on a device that fails. SLG_TEST_SICK is KIND:FOLDER; each failure leaves a file in the folder.

A process in which it failed leaves another one, `normal-exit`, if it ends as Python usually does.
"""

import atexit
import os
import time
from multiprocessing import current_process
from pathlib import Path

import torch
from tiny_teacher import tiny
from torch import nn

ECC = "CUDA error: uncorrectable ECC error encountered"
TRIAL = 5  # forwards before the first label, and some more


class Sick(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = tiny()
        self.pretrained_cfg = self.inner.pretrained_cfg
        self.forwards = 0
        kind, _, folder = os.environ.get("SLG_TEST_SICK", "well").partition(":")
        self.act, self.folder = getattr(self, kind), Path(folder)

    def forward(self, x):
        self.forwards += 1
        if self.forwards > TRIAL:
            self.act()
        return self.inner(x)

    def well(self): ...

    def fail(self):
        atexit.register((self.folder / "normal-exit").touch)
        (self.folder / f"failed-{time.monotonic_ns()}").touch()
        raise getattr(torch, "AcceleratorError", RuntimeError)(ECC)

    def failures(self):
        return len(list(self.folder.glob("failed-*")))

    def once(self):
        """Fail in the first process that calls this."""
        if not self.failures():
            self.fail()

    def one_of_two(self):
        """Fail in all processes but the first, which waits for three failures."""
        if current_process().name != "SpawnProcess-1":
            self.fail()
        while self.failures() < 3:
            time.sleep(0.02)

    def always(self):
        self.fail()

    def full(self):
        (self.folder / f"failed-{time.monotonic_ns()}").touch()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def sick():
    return Sick()
