"""A teacher whose labels encode its input: 64 bits of a hash of each normalised crop, as probabilities."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn

BITS = 64


def hashed(image: torch.Tensor) -> np.ndarray:
    """Hash a normalised image, float32 [3, S, S] in C order, to bits, bool [64]."""
    data = image.contiguous().numpy().tobytes()
    return np.unpackbits(np.frombuffer(hashlib.blake2b(data, digest_size=BITS // 8).digest(), np.uint8)) > 0


def witnessed(row: np.ndarray) -> np.ndarray:
    """Decode the bits, bool [64], from a row of probabilities [64]."""
    return row > row.max() / 2


class Witness(nn.Module):
    def __init__(self, size: int, interpolation: str) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.pretrained_cfg = {
            "input_size": (3, size, size),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "interpolation": interpolation,
            "crop_pct": 0.9,
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        return torch.from_numpy(np.stack([hashed(image) for image in x.cpu()])).float() * 8


def bicubic224() -> nn.Module:
    return Witness(224, "bicubic")


def bilinear97() -> nn.Module:
    return Witness(97, "bilinear")
