"""Banks of random prototypes, and the heads of DINO's checkpoints as an independent torch module."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from slg_wds.banks import Bank, DenseLayer, encode_bank


def layer(outputs: int, inputs: int, seed: int, bias: bool = True) -> DenseLayer:
    chance = np.random.default_rng(seed)
    weight = chance.normal(size=(outputs, inputs)).astype(np.float32)
    return DenseLayer(weight, chance.normal(size=outputs).astype(np.float32) if bias else None)


def unit_bank(size: int, dim: int, seed: int = 0, **more: Any) -> Bank:
    """Prototypes of unit length, as k-means on the sphere gives them."""
    made = layer(size, dim, seed)
    weight = made.weight / np.linalg.norm(made.weight, axis=1, keepdims=True)
    return Bank(DenseLayer(weight, made.bias * np.float32(0.05)), unit=True, **{"temperature": 0.1, **more})


def written(bank: Bank, path: Path) -> str:
    path.write_bytes(encode_bank(bank))
    return str(path)


class Head(nn.Module):
    """A projection head of DINO: three layers with GELU, unit length, a last layer whose rows have a norm of their own.

    The names of its parameters are those of the released checkpoints.
    """

    def __init__(self, dim: int, out: int, hidden: int = 24, bottleneck: int = 8) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # torch deprecates what the checkpoints were made with
            self.last_layer = nn.utils.weight_norm(nn.Linear(bottleneck, out, bias=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last_layer(nn.functional.normalize(self.mlp(x), dim=-1))
