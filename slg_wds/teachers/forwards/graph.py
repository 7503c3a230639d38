"""A forward as a CUDA graph: the GPU is told once which kernels to run, and then runs all of them at one call.

Launching the hundreds of kernels of a forward one by one takes the interpreter several milliseconds, which is more than
an H100 computes on 50 crops, and every cutting thread that needs the interpreter makes it longer. A graph does exactly
what was recorded: the same kernels on the same memory. So a model that decides anything in Python, such as by the
number of the call, would get it wrong, and each graph is compared with the plain forward before it is used.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from slg_wds.console import data_size
from slg_wds.teachers.weights import one_line

if TYPE_CHECKING:
    import torch

    Run = Callable[[torch.Tensor], Any]

SPARE = 1.1  # times the memory that a forward needs has to be free for a recording
WARM_UP = 3  # forwards before the recording, in which libraries allocate what they need


class GraphedForward:
    """A recorded forward for batches of one size.

    Args:
        run: the forward to record: uint8 [N, 3, S, S] -> logits [N, C].
        images: crops of the shape and memory layout to record it for, on the GPU.

    Raises:
        RuntimeError: the forward does something that cannot be recorded, such as to wait for the GPU.
    """

    def __init__(self, run: Run, images: torch.Tensor) -> None:
        import torch

        device = images.device
        self._images = images.clone()
        self._graph = torch.cuda.CUDAGraph()
        stream, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(device)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run(self._images)
            with _no_waits():
                run(self._images)
        current.wait_stream(stream)
        _check_memory(device, torch.cuda.memory_reserved(device) - before)
        # Other threads may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local"):
            self._out: torch.Tensor = run(self._images)

    def fits(self, images: torch.Tensor) -> bool:
        """Return whether the forward was recorded for batches of this size."""
        return images.shape == self._images.shape

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Run the forward on the current stream.

        Args:
            images: as those that it was recorded for.

        Returns:
            The logits, in memory of their own: the next call writes over the graph's.
        """
        self._images.copy_(images)
        self._graph.replay()
        return self._out.clone()


def _check_memory(device: torch.device, needed: int) -> None:
    """Raise RuntimeError if a GPU lacks the memory for a recording.

    Running out of memory can break a recording off, with the same effect on torch's allocator as a wait: see below.

    Args:
        device: the GPU.
        needed: bytes that the forward has taken beyond its weights.
    """
    import torch

    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()  # what the forwards before the recording have taken, which lies on another stream
    free, _ = torch.cuda.mem_get_info(device)
    if free < (needed := int(SPARE * needed)):
        raise RuntimeError(f"it needs {data_size(needed)} of memory, and {data_size(free)} are free")


@contextlib.contextmanager
def _no_waits() -> Iterator[None]:
    """Raise RuntimeError where the host waits for the GPU.

    Such a wait would end a recording, after which the allocator of torch before 2.12 believes for ever that one is
    under way, and gives no cached memory back when it runs short.
    """
    import torch

    # A standing filter, not `catch_warnings`, which other threads would see.
    warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def graphed(run: Run, batches: Sequence[torch.Tensor]) -> tuple[GraphedForward | None, str]:
    """Record a forward, and compare it with the plain one.

    Args:
        run: the forward: uint8 [N, 3, S, S] -> logits [N, C].
        batches: different batches of one shape, on the GPU.

    Returns:
        The graph, and ""; or None, and why there is no graph.
    """
    import torch

    current = torch.cuda.current_stream(batches[0].device)
    try:
        graph = GraphedForward(run, batches[0])
        same = all(torch.equal(graph(batch), run(batch)) for batch in batches)
    except Exception as error:  # whatever a model does that cannot be recorded, or that needs too much memory
        # Where a recording breaks off, its end raises an error of its own; the one before it is the cause.
        cause = error.__context__ if "capture" in str(error) else None
        why = one_line(cause or error)
        # Torch leaves the stream of a recording that failed as the current one.
        torch.cuda.set_stream(current)
    else:
        if same:
            return graph, ""
        why = "its logits are not those of the plain forward, bit for bit"
        del graph
    # The graph has kept memory of its own. After a recording that failed, some versions of torch refuse this;
    # an error of the device itself comes again at its next use.
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()
    return None, why
