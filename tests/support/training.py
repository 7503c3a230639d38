"""Trainings in this process, what they printed, and the weights they ended with."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from slg_wds.teachers.preprocessing import resolve
from slg_wds.training.command import main
from support.models.tiny_students import weights
from support.paths import MODELS

STUDENTS = MODELS / "tiny_students.py"
PLAIN, RESTLESS = f"{STUDENTS}:plain", f"{STUDENTS}:restless"

SHOWN = resolve({}, "", {})[0]  # ImageNet's defaults


def common(labels: str) -> list[str]:
    """Flags of a short training: 36 images, 4 crops each, 16 crops a batch, so 9 steps a walk of 4 epochs."""
    return ["--softlabel_path", labels, "-b", "16", "--lr", "0.05", "-j", "1", "-p", "1"]


def train(folder: Path, labels: str, images: Path, *more: str) -> None:
    assert main([*common(labels), *more, "--save_checkpoint_path", str(folder), str(images)]) == 0


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def same(one: Path, other: Path) -> None:
    a, b = (weights(str(folder / "checkpoint.pth.tar")) for folder in (one, other))
    assert a.keys() == b.keys() and len(a) > 5
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
