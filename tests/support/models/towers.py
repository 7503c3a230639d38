"""Teachers that give embeddings."""

import torch
from torch import nn

from slg_wds.demo.teacher import lite0


def lite0_features() -> nn.Module:
    """EfficientNet-Lite0 without its head: 1280 pooled features."""
    model = lite0()
    model.reset_classifier(0)
    return model


def shares() -> nn.Module:
    """Embeddings that are above 0 and sum to 1, as probabilities do."""
    return _Pixels(lambda pixels: pixels.softmax(1))


def noisy() -> nn.Module:
    """Embeddings that are not the same for the same crop."""
    return _Pixels(lambda pixels: pixels + torch.rand_like(pixels))


def zero() -> nn.Module:
    """Embeddings of zeros for dark crops."""
    return _Pixels(lambda pixels: pixels * (pixels.mean(1, keepdim=True) > 0.4))


class _Pixels(nn.Module):
    def __init__(self, change) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.change = change
        self.preprocessing = {"input_size": 32, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.change(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)) + 0 * self.anchor
