"""What the parts with a network share: device, photographs, runs, and what makes waits and late streams visible."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from gpu_parts.findings import Findings
from slg_wds.concurrency.copy_stream import CopyStream
from slg_wds.concurrency.cores import cores
from slg_wds.config import GenerateConfig
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation.job import Job
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import _features, open_job
from slg_wds.generation.worker import work
from slg_wds.labelset.creating import create_labels
from slg_wds.store import Location

CYCLES = 20_000_000  # of a delay: about 10 ms


class Check:
    """The device and the folder of a part.

    Attributes:
        findings: takes what is found.
        device: where the networks run.
        quick: whether models and sizes are small.
    """

    def __init__(self, findings: Findings) -> None:
        self.findings, self.quick = findings, findings.quick
        self.device = torch.device(findings.device)
        self._made = 0
        if self.gpu:
            torch.cuda.set_device(self.device)

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def images(self, count: int) -> Path:
        """Return a folder of `count` generated photographs."""
        from simulated import photographs

        folder = self.findings.folder / f"images{count}"
        if not folder.exists():  # whole or not at all: this process may be killed
            aside = self.new_folder()
            photographs(aside, count)
            aside.rename(folder)
        return folder

    def config(self, model: str, images: int, **options: Any) -> GenerateConfig:
        given: dict[str, Any] = {
            "precision": "bf16", "threads_per_forward": 1, "workers": min(4, cores()), "samples_per_shard": images,
            "save_path": str(self.new_folder()), **options,
        }  # fmt: skip
        if given.get("output", "labels") == "labels":
            given = {"label_type": "shared_tail_k5", "values": "log8", **given}
        if given.get("label_type") == "lowrank":
            del given["values"]
        arch = f"{Path(__file__).with_name('models.py')}:{model}"
        return GenerateConfig(data=str(self.images(images)), teacher_source="private", arch=arch, **given)

    def job(self, config: GenerateConfig, device: str | None = None) -> Job:
        """Open everything that a run needs, without a label set."""
        return open_job(Recipe.of(config), device or str(self.device), save=False)

    def saved(self, job: Job) -> Job:
        """Begin a new label set; return a job that writes to it."""
        labels, url = job.labels, Location(str(self.new_folder()))
        needed = _features(labels.identity, job.reference)
        new = create_labels(url, labels.plan, labels.identity, {}, None, requires=needed)
        return dataclasses.replace(job, labels=new)

    def made(self, job: Job) -> Job:
        """Make a new label set with what a job has open; return a job that has it."""
        job = self.saved(job)
        work(job, None, RunObserver())
        return job

    def new_folder(self) -> Path:
        self._made += 1
        return self.findings.file.with_suffix("") / f"labels{self._made}"

    def steady(self) -> contextlib.AbstractContextManager[None]:
        """Return a block in which an error is raised where the host waits for the device."""
        return no_waits() if self.gpu else contextlib.nullcontext()


def shards(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each shard of a set."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """Raise an error where the host waits for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def delays(slow: str | None) -> Iterator[None]:
    """Delay the copies to the GPU, or the kernels of teachers."""
    from slg_wds.teachers import Ensemble

    begin, probabilities = CopyStream.begin, Ensemble.probabilities

    def late_copy(copies: CopyStream, copy: Any) -> Any:
        with torch.cuda.stream(copies._stream):
            torch.cuda._sleep(CYCLES)
        return begin(copies, copy)

    def late_kernels(ensemble: Ensemble, batches: Any) -> Any:
        torch.cuda._sleep(CYCLES)
        return probabilities(ensemble, batches)

    with contextlib.ExitStack() as stack:
        if slow == "copies":
            stack.enter_context(mock.patch.object(CopyStream, "begin", late_copy))
        if slow == "kernels":
            stack.enter_context(mock.patch.object(Ensemble, "probabilities", late_kernels))
        yield


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return ||found - wanted|| / ||wanted||; NaN and shapes that differ count as infinite."""
    if found.shape != wanted.shape:
        return float("inf")
    one, other = found.detach().double().cpu(), wanted.detach().double().cpu()
    share = float((one - other).norm() / other.norm().clamp(min=1e-300))
    return share if share == share else float("inf")
