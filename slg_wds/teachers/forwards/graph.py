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

from slg_wds.teachers.weights import one_line

if TYPE_CHECKING:
    import torch

    Run = Callable[[torch.Tensor], Any]

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

        self._images = images.clone()
        self._graph = torch.cuda.CUDAGraph()
        stream, current = torch.cuda.Stream(images.device), torch.cuda.current_stream(images.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run(self._images)
            with _no_waits():
                run(self._images)
        current.wait_stream(stream)
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


@contextlib.contextmanager
def _no_waits() -> Iterator[None]:
    """Raise RuntimeError where the host waits for the GPU.

    Such a wait would end a recording, after which torch's allocator believes for ever that one is under way.
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
        why = one_line(error)
        torch.cuda.set_stream(
            current
        )  # torch leaves the stream of a recording that failed as the current one
    else:
        if same:
            return graph, ""
        why = "its logits are not those of the plain forward, bit for bit"
        del graph
    torch.cuda.empty_cache()  # the graph has kept memory of its own
    return None, why
