"""Copies from the host to a GPU on a stream of their own, which run while the GPU computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class CopyStream:
    """Copies batches to a GPU beside its computations.

    A copy on the stream that computes would wait for every kernel launched before it.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def to_device(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Begin to copy tensors, and let the current stream wait for the copies. The host waits for nothing.

        Args:
            tensors: on the host; pinned, or the copies are not asynchronous. They must stay unchanged until the host
                has awaited an event that was recorded later on the current stream.

        Returns:
            The copies, for use on the current stream. They must be kept until that event too: their memory belongs to
            the other stream, and would be given to a new copy while they are in use. (`record_stream` would do the same
            with an event for each tensor, and frees nothing at all in a process where the recording of a CUDA graph has
            failed.)
        """
        import torch

        with torch.cuda.stream(self._stream):
            copies = [tensor.to(self._device, non_blocking=True) for tensor in tensors]
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
        torch.cuda.current_stream(self._device).wait_event(copied)
        return copies
