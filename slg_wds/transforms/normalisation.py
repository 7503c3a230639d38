"""uint8 pixels as a model sees them, with the same bits on every device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Normalisation:
    """(pixel / 255 - mean) / std, looked up in a table of all 3 x 256 values that the CPU computed once.

    A GPU multiplies by 1/255 where a CPU divides by 255, and about half of the 256 values would differ in their last
    bits. A look-up is exact everywhere and costs less than the arithmetic. The values are those of torchvision's
    ToTensor and Normalize.

    Args:
        mean, std: of the three channels, for pixels in 0..1.
        device: of the images.
        dtype: of the result; the float32 values are rounded to it.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        dtype: torch.dtype | None = None,
    ) -> None:
        import torch

        mean_31, std_31 = (torch.tensor(v, dtype=torch.float32).view(3, 1) for v in (mean, std))
        table = torch.arange(256, dtype=torch.float32).div(255).sub(mean_31).div(std_31)
        self._table = table.to(dtype or torch.float32).flatten().to(device)
        self._first = torch.tensor([0, 256, 512], dtype=torch.int32).view(3, 1, 1).to(device)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, 3, H, W] -> [B, 3, H, W] of `dtype`, in the same memory format."""
        places = images + self._first
        flat = places if places.is_contiguous() else places.permute(0, 2, 3, 1)
        found = self._table.index_select(0, flat.reshape(-1)).view(flat.shape)
        return found if flat is places else found.permute(0, 3, 1, 2)
