"""uint8 pixels -> the floats that a model takes, with the same bits on every device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Normalisation:
    """Computes (pixel / 255 - mean) / std, by a table of all 3 x 256 values that the CPU fills once.

    A GPU multiplies by 1/255 instead of dividing by 255, so that about half of the values would differ from those of a
    CPU in their last bits. A look-up is exact everywhere and costs less than the arithmetic. The values are those of
    torchvision's ToTensor and Normalize.

    Attributes:
        device: where the table is, and images must be. Of "cuda", the GPU that was the current one.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Compute the table.

        Args:
            mean: one number per channel (red, green, blue), for pixels in 0..1.
            std: the same for the standard deviation.
            device: where the images are.
            dtype: of the result; the float32 values are rounded to it. None: float32.
        """
        import torch

        mean_31, std_31 = (torch.tensor(v, dtype=torch.float32).view(3, 1) for v in (mean, std))
        table = torch.arange(256, dtype=torch.float32).div(255).sub(mean_31).div(std_31)
        self._table = table.to(dtype or torch.float32).flatten().to(device)
        self._first = torch.tensor([0, 256, 512], dtype=torch.int32).view(3, 1, 1).to(device)
        self.device = self._table.device

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 [B, 3, H, W] to [B, 3, H, W] of `dtype`, in the same memory format."""
        places = images + self._first
        flat = places if places.is_contiguous() else places.permute(0, 2, 3, 1)
        found = self._table.index_select(0, flat.reshape(-1)).view(flat.shape)
        return found if flat is places else found.permute(0, 3, 1, 2)
