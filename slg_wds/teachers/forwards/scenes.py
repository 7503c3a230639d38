"""Synthetic photographs, on which forwards are tried and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def scenes(count: int, side: int, seed: int, light: float = 0.45, contrast: float = 0.25) -> torch.Tensor:
    """Return synthetic photographs: shapes that are weaker the smaller they are.

    Args:
        count: N.
        side: S, in pixels.
        seed: of the shapes.
        light: mean of the pixels, in 0..1.
        contrast: their standard deviation, in 0..1.

    Returns:
        uint8 [N, 3, S, S].
    """
    import torch
    from torch.nn.functional import interpolate

    chance = torch.Generator().manual_seed(seed)
    shapes = torch.zeros(count, 3, side, side)
    for cells in (3, 9, 27, 81):
        noise = torch.rand(count, 3, cells, cells, generator=chance) - 0.5
        shapes += interpolate(noise, (side, side), mode="bilinear") / cells**0.5
    pixels = shapes / shapes.std((1, 2, 3), keepdim=True) * contrast + light
    return (pixels.clamp(0, 0.98) * 255).round().to(torch.uint8)
