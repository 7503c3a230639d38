"""What all parts of gpu_check share: device, sizes, photographs, runs, and what was found."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from slg_wds.concurrency.cores import cores
from slg_wds.config import GenerateConfig
from slg_wds.generation.job import Job
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from slg_wds.labelset.creating import create_labels
from slg_wds.store import Location

TOOLS = Path(__file__).resolve().parent.parent
if str(TOOLS / "bench") not in sys.path:
    sys.path.append(str(TOOLS / "bench"))


# When a part begins nothing new any more, as a share of all time, so that every part has its turn.
ENDS = {"correct": 0.25, "generation": 0.65, "replay": 0.75}


class Check:
    """One run of gpu_check.

    Attributes:
        device: where the networks run.
        quick: whether models and sizes are small.
        folder: for photographs and labels.
        figures: what was measured, by part.
        failed: what is not as it should be.
        left_out: what was not begun, since the time was over.
        students: the job whose set the loader is measured with; None until it is made.
    """

    def __init__(self, device: torch.device, quick: bool, folder: Path, seconds: float) -> None:
        self.device, self.quick, self.folder = device, quick, folder
        self.figures: dict[str, dict[str, Any]] = {}
        self.failed: list[str] = []
        self.left_out: list[str] = []
        self.students: Job | None = None
        self._start, self._seconds = time.monotonic(), seconds
        self._made = 0

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def current(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(self.device) if self.gpu else contextlib.nullcontext()

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def begins(self, part: str, what: str) -> bool:
        """Return whether there is time left to begin something; note it if not."""
        if time.monotonic() < self._start + self._seconds * ENDS.get(part, 1.0):
            return True
        self.left_out.append(f"{part}: {what}")
        return False

    def found(self, part: str, what: str, value: Any) -> None:
        self.figures.setdefault(part, {})[what] = value

    def holds(self, what: str, right: bool, why: str = "") -> None:
        """Note a check of `correct`."""
        self.found("correct", what, bool(right))
        if not right:
            self.failed.append(f"correct: {what}{f' ({why})' if why else ''}")

    def images(self, count: int) -> Path:
        """Return a folder of `count` generated photographs."""
        from simulate_gpu import photographs

        folder = self.folder / f"images{count}"
        if not folder.exists():
            photographs(folder, count)
        return folder

    def config(self, model: str, images: int, **options: Any) -> GenerateConfig:
        given: dict[str, Any] = {
            "precision": "bf16", "label_type": "shared_tail_k5", "values": "log8", "threads_per_forward": 1,
            "workers": min(4, cores()), "samples_per_shard": images, **options,
        }  # fmt: skip
        arch = f"{Path(__file__).with_name('models.py')}:{model}"
        return GenerateConfig(
            data=str(self.images(images)), save_path=str(self.new_folder()), teacher_source="private", arch=arch,
            **given,
        )  # fmt: skip

    def job(self, config: GenerateConfig) -> Job:
        """Open everything that a run needs, without a label set."""
        return open_job(Recipe.of(config), str(self.device), save=False)

    def saved(self, job: Job) -> Job:
        """Return a job that writes to a new label set."""
        labels = job.labels
        made = create_labels(Location(str(self.new_folder())), labels.plan, labels.identity, {}, None)
        return dataclasses.replace(job, labels=made)

    def new_folder(self) -> Path:
        self._made += 1
        return self.folder / f"labels{self._made}"

    def report(self) -> dict[str, Any]:
        on = (
            torch.cuda.get_device_name(self.device)
            if self.gpu
            else platform.processor() or platform.machine()
        )
        return {
            "device": on, "cores": cores(), "cpus": os.cpu_count(), "python": platform.python_version(),
            "torch": torch.__version__, "cuda": torch.version.cuda, "quick": self.quick, "failed": self.failed,
            "left_out": self.left_out, **self.figures,
        }  # fmt: skip
