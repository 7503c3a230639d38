"""Small tensors that are made on the host and needed on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; the host does not wait for what a GPU still has to do.

    A copy from ordinary memory waits for all of that, one from pinned memory for nothing. Torch keeps pinned memory
    until it was copied.

    Args:
        tensor: in ordinary memory.
        device: where it is needed.
    """
    if device.type != "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
