"""Students that train in milliseconds; command lines name them."""

from __future__ import annotations

import os

import torch
from torch import nn

CLASSES = 20  # of tiny_teacher.tiny


def plain() -> nn.Module:
    """A student without batch statistics and random numbers."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)
    )
    return sized(model)


def restless() -> nn.Module:
    """A student with batch norm and dropout, whose averages and random numbers must survive a kill."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(0.2), nn.Linear(32, CLASSES),
    )  # fmt: skip
    return sized(model)


def sized(model: nn.Module) -> nn.Module:
    model.pretrained_cfg = {"input_size": (3, 32, 32), "interpolation": "bilinear"}
    return model


def weights(path: str) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by their paths in it."""
    found: dict[str, torch.Tensor] = {}

    def visit(value: object, name: str) -> None:
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                visit(inner, f"{name}/{key}")
        elif isinstance(value, list):
            for key, inner in enumerate(value):
                visit(inner, f"{name}/{key}")

    visit(torch.load(path, weights_only=True), "")
    return found


def features() -> nn.Module:
    """The restless student without its head: 32 features."""
    return sized(restless()[:-1])


def calm() -> nn.Module:
    """The plain student without its head: 32 features."""
    return sized(plain()[:-1])


class Greedy(nn.Module):
    """The plain student; where the environment says so, it asks for more memory than any machine has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if os.environ.get("SLG_TEST_GREEDY", "0") == os.environ.get("SLURM_PROCID", "0"):
            torch.empty(1 << 60, dtype=torch.uint8)
        return self.inner(images)


def greedy() -> nn.Module:
    return sized(Greedy())
