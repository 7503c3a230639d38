"""Threads of our own beside torch's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


def use_one_thread() -> None:
    """Let torch's operators in the calling thread run in it alone, however many the others use.

    torch keeps a default beside each thread's own number, and a thread takes over the default at its first operator,
    whatever it was told before. Asking for the number is such a first time: without it, another thread's
    `set_num_threads` would reach this one, and every small resize would wait for a team of threads
    (ATen/ParallelOpenMP.cpp, `lazy_init_num_threads`).
    """
    import torch

    torch.get_num_threads()
    torch.set_num_threads(1)


@contextlib.contextmanager
def threads_of_forwards(count: int) -> Iterator[None]:
    """Let torch's operators in the calling thread use `count` threads, and as many as before when it is done."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def threads_beside_forwards(count: int, forward: int) -> Iterator[ThreadPoolExecutor]:
    """Give so many threads that use one of torch's each, while the calling one uses `forward` for its operators.

    At the end what is not begun is dropped, and torch's numbers are as before: that of the calling thread, and the
    default of later ones, which each of these threads moved when it began.
    """
    import torch

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "slg-image", initializer=use_one_thread)
    try:
        pool.submit(int).result()  # the first has begun before the number is set that counts
        torch.set_num_threads(forward)
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)
