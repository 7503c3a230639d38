"""`slg-wds train --seed`: two runs end with the same weights, bit for bit, and so does one that was stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import slg_wds
from gpu_parts.equipment.loaders import labels_of
from gpu_parts.equipment.setup import Setup
from gpu_parts.supervision.findings import Findings
from slg_wds.training import loop
from slg_wds.training.command import main
from slg_wds.training.output.folder import CHECKPOINT

FLAGS = "--epochs 8 -b 32 --seed 0 --amp bf16 --ema 0.9 --mixup_cutmix --clip-grad 1 --checkpoint-every 1 --workers 2"
STOP = 3  # steps
TOGETHER = 60.0  # seconds, at most, of two processes
OTHER = "vit_tiny_patch16_224"  # without pooling, whose gradients torch may sum in any order
TORCHRUN = {
    "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29517",
}  # fmt: skip


def check(findings: Findings) -> None:
    setup = Setup(findings)
    arch = setup.arch("small") if setup.quick else "resnet18"
    labels = labels_of(setup, "tail", {})
    first = trained(setup, arch, labels)
    findings.holds("two trainings end with the same weights", same(first, trained(setup, arch, labels)))
    if not setup.quick and findings.begins(OTHER):  # if the first differ: is it the network's own operators?
        one, other = (trained(setup, OTHER, labels) for _ in range(2))
        findings.holds(f"two trainings end with the same weights: {OTHER}", same(one, other))
    if findings.begins("a training that is stopped and resumed"):
        folder = setup.new_folder()
        stopped = run(arch, labels, folder, STOP)
        code = run(arch, labels, folder)
        right = stopped == 130 and code == 0 and same(first, read(folder))
        findings.holds(
            "a training that is stopped and resumed ends with the same weights", right, [stopped, code]
        )
    if findings.begins("a training that torchrun started"):
        with mock.patch.dict(os.environ, TORCHRUN):
            launched = trained(setup, arch, labels)
        findings.holds("a training that torchrun started ends with the same weights", same(first, launched))
    if not setup.quick and findings.begins("two processes on one device", takes=20):
        with findings.going_on("two processes on one device"):
            folder = setup.new_folder()
            code = run_together(OTHER, labels, folder)
            findings.holds("two processes train together on one device", code == 0 and finite(folder), code)


def trained(setup: Setup, arch: str, labels: str) -> dict[str, Any]:
    folder = setup.new_folder()
    assert run(arch, labels, folder) == 0
    return read(folder)


def run(arch: str, labels: str, folder: Path, stop: int | None = None) -> int:
    """Train, resuming what is in the folder; with `stop`, as if a user stopped it after so many steps."""
    step, taken = loop.train_step, 0

    def counted(*given: Any) -> torch.Tensor:
        nonlocal taken
        if taken == stop:
            raise KeyboardInterrupt
        taken += 1
        return step(*given)

    with mock.patch.object(loop, "train_step", counted):
        return main(flags_of(arch, labels, folder))


def flags_of(arch: str, labels: str, folder: Path) -> list[str]:
    """Return the flags of a training that is validated by the labels that it learns."""
    size = [] if arch.endswith(":small") else ["--size", "64"]
    of_labels = ["--softlabel_path", labels, "--val-softlabels", labels]
    return [
        "-a",
        arch,
        *of_labels,
        "--save_checkpoint_path",
        str(folder),
        "--resume",
        "auto",
        *size,
        *FLAGS.split(),
    ]


def run_together(arch: str, labels: str, folder: Path) -> int:
    """Train by two processes that share the device. NCCL joins no processes of one GPU, gloo does."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "slg_wds", "train"]
    path = os.pathsep.join([str(Path(slg_wds.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, *torchrun, *flags_of(arch, labels, folder), "--dist-backend", "gloo"]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, timeout=TOGETHER, check=False).returncode


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    return {"weights": found["state_dict"], "average": found["ema"]}


def finite(folder: Path) -> bool:
    return all(bool(value.isfinite().all()) for kind in read(folder).values() for value in kind.values())


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(value, other[kind][name]) for kind in one for name, value in one[kind].items())
