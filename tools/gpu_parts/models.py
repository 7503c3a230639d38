"""Teachers with random weights, as factories for --teacher-source private."""

from __future__ import annotations

import timm
import torch
from torch import nn


def resnet50() -> nn.Module:
    torch.manual_seed(0)
    # By default the last batch norm of a block is 0, and most of the network would decide nothing. Without that the
    # logits reach 140; those of trained networks have a deviation of about 2.
    model = timm.create_model("resnet50", zero_init_last=False)
    model.fc.weight.data.mul_(0.05)
    return model


def vit_b() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_base_patch16_224")


def small() -> nn.Module:
    """Return a network that a CPU runs in milliseconds: 100 classes, 32 pixels."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 100),
    )  # fmt: skip
    model.pretrained_cfg = {"input_size": (3, 32, 32), "interpolation": "bicubic"}
    return model


def small_tower() -> nn.Module:
    """Return the same without its last layer: 128 features."""
    model = small()
    model[-1] = nn.Identity()
    return model
