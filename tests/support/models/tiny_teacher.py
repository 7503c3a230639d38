"""A fast teacher: a small random network with fixed weights."""

import os
import signal
import time
from pathlib import Path

import torch
from torch import nn


def tiny(classes: int = 20) -> nn.Module:
    """Input of 32 pixels, bilinear; the softmax spreads over several classes."""
    if meeting := os.environ.get("SLG_TEST_MEETING"):
        wait_for_the_others(meeting)
    generator = torch.Generator().manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    model.pretrained_cfg = {
        "input_size": (3, 32, 32),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.25, 0.3),
        "interpolation": "bilinear",
        "crop_pct": 0.875,
    }
    return model


def thousand() -> nn.Module:
    """The same network with 1,000 classes, as ImageNet."""
    return tiny(1000)


def many() -> nn.Module:
    """The same network with 60,000 classes."""
    return tiny(60_000)


def other() -> nn.Module:
    """Another network over the same classes, with a larger input and its own preprocessing."""
    model = tiny()
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 40, 40), "interpolation": "bicubic"}
    return model


def nan_for_bright() -> nn.Module:
    """A teacher that gives NaN for bright crops."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = x.mean((1, 2, 3)) > 1.0
            return torch.where(bright[:, None], float("nan"), self.inner(x))

    model = Model()
    model.pretrained_cfg = model.inner.pretrained_cfg
    return model


def unhurried() -> nn.Module:
    """`tiny`, but each forward takes 0.05 s of waiting: what else the machine does hardly moves the rate."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05)
            return self.inner(x)

    model = Model()
    model.pretrained_cfg = model.inner.pretrained_cfg
    return model


def wait_for_the_others(meeting: str) -> None:
    """Wait until COUNT processes have called this; `meeting` is FOLDER:COUNT."""
    folder, _, count = meeting.rpartition(":")
    (Path(folder) / str(os.getpid())).touch()
    while len(os.listdir(folder)) < int(count):
        time.sleep(0.01)


def deadly() -> nn.Module:
    """`tiny`, but a white image kills the process that labels it, while SLG_TEST_DEADLY is set."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if os.environ.get("SLG_TEST_DEADLY") and bool((x.amin((1, 2, 3)) > 2.3).any()):
                os.kill(os.getpid(), signal.SIGKILL)
            return self.inner(x)

    model = Model()
    model.pretrained_cfg = model.inner.pretrained_cfg
    return model
