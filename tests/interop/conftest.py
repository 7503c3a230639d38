"""Real labels of a few photographs, in the original's label files of every type."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from support.oracles import fkd_original as original

PICTURES = (
    "n02123045/chelsea_0.jpg",
    "n02123045/chelsea_1.jpg",
    "n07920052/coffee_0.jpg",
    "n07920052/coffee_2.jpg",
    "n04266014/rocket_0.jpg",
)


@pytest.fixture(scope="session")
def images(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DATASET with its train folder of five photographs in three classes. Never written to by a test."""
    folder = tmp_path_factory.mktemp("fkd") / "dataset"
    for name in PICTURES:
        target = folder / "train" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photographs / "train" / name, target)
    return folder


@pytest.fixture(scope="session")
def answers(images: Path) -> dict[str, tuple[np.ndarray, np.ndarray, torch.Tensor]]:
    """The teacher's answers by picture."""
    torch.manual_seed(0)
    model, generator = original.teacher(), np.random.default_rng(0)
    return {name: original.probabilities(images / "train" / name, model, generator) for name in PICTURES}


@pytest.fixture
def label_files(answers, tmp_path) -> Callable[..., Path]:
    """Writes a folder of label files: label_files("hard", half=False) -> the folder."""

    def make(label_type: str = "marginal_smoothing_k5", half: bool = False, name: str = "labels") -> Path:
        for picture, (coords, flips, p) in answers.items():
            file = tmp_path / name / "dataset" / "train" / picture.replace(".jpg", ".tar")
            original.write(file, coords, flips, original.quantised(p, label_type), half)
        return tmp_path / name

    return make
