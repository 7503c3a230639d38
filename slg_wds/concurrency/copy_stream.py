"""Copies from the host to a GPU on a stream of their own, which run while the GPU computes."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@functools.cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of a GPU's copies.

    All objects share it: torch keeps memory that was let go for the stream that allocated it. Each new stream, such as
    that of `loader.to("cuda")` in every epoch, would take memory of its own.
    """
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class CopyStream:
    """Copies batches to a GPU beside its computations. The host waits for nothing.

    A copy on the stream that computes would wait for every kernel launched before it. But the memory of copies belongs
    to the stream that made them: once nobody holds a copy, torch gives its memory to a new one, even while the
    computing stream still reads it. So each batch takes three steps: `begin` copies it, `hand_over` lets computations
    wait for it, and `give_back` is called when all that reads it was launched, and keeps its memory until that is done.
    (`record_stream` would do the same with an event for each tensor, and frees nothing at all in a process where the
    recording of a CUDA graph has failed.)

    Args:
        device: the GPU. Its current stream, whenever a method is called, is the one that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _stream_of(device)
        self._in_use: deque[tuple[torch.cuda.Event, Any]] = deque()  # the oldest first

    def begin(self, copy: Callable[[], T]) -> tuple[T, torch.cuda.Event]:
        """Begin copies.

        Args:
            copy: makes them, of tensors on the host; these are pinned, or the copies are not asynchronous. They must
                stay unchanged until an event that was recorded later on the computing stream is done.

        Returns:
            What `copy` returned, and what `hand_over` waits for.
        """
        import torch

        with torch.cuda.stream(self._stream):
            return copy(), self._now(self._stream)

    def hand_over(self, copied: torch.cuda.Event) -> None:
        """Let the computing stream wait for copies."""
        import torch

        torch.cuda.current_stream(self._device).wait_event(copied)

    def give_back(self, copies: Any) -> None:
        """Keep copies until all is done that the computing stream was given by now, and let go of earlier ones."""
        import torch

        self._in_use.append((self._now(torch.cuda.current_stream(self._device)), copies))
        while self._in_use and self._in_use[0][0].query():  # type: ignore[no-untyped-call]
            self._in_use.popleft()

    def finish(self) -> None:
        """Let later users of this stream's memory wait for all that reads its copies; this object may be gone then."""
        import torch

        self._stream.wait_stream(torch.cuda.current_stream(self._device))

    @staticmethod
    def _now(stream: torch.cuda.Stream) -> torch.cuda.Event:
        import torch

        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
        return event
