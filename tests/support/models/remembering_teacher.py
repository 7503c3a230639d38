"""EfficientNet-Lite0, which answers a crop that it has seen before from memory: several label sets cost one pass.

Named as a module, not as a file, so that each set meets the same memory.
"""

import hashlib

import torch
from torch import nn

from slg_wds.demo.teacher import lite0

_ANSWERS: dict[tuple[bytes, int], torch.Tensor] = {}  # by crop and number of classes


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = lite0()
        self.pretrained_cfg = self.inner.pretrained_cfg

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        classes = self.inner.num_classes
        keys = [(hashlib.sha256(crop.contiguous().numpy().tobytes()).digest(), classes) for crop in x]
        new = [i for i, key in enumerate(keys) if key not in _ANSWERS]
        if new:
            for i, answer in zip(new, self.inner(x[new]), strict=True):
                _ANSWERS[keys[i]] = answer.clone()
        return torch.stack([_ANSWERS[key] for key in keys])


def remembering() -> nn.Module:
    return Remembering()


def remembering_features() -> nn.Module:
    """The same without its head: 1280 pooled features."""
    model = Remembering()
    model.inner.reset_classifier(0)
    return model
