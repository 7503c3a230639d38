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
            tensors: on the host; pinned, or the copies are not asynchronous. They must stay unchanged until an event is
                reached that is recorded later on the current stream.

        Returns:
            The copies, for use on the current stream.
        """
        import torch

        with torch.cuda.stream(self._stream):
            copies = [tensor.to(self._device, non_blocking=True) for tensor in tensors]
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copied)
        for copy in copies:
            # Their memory belongs to the other stream. It must not be given to a new copy while they are in use here.
            copy.record_stream(current)
        return copies
