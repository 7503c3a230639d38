"""How many threads torch and numpy use in each of this package's threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


def use_one_thread() -> None:
    """Let torch's operators use one thread in the calling thread, however many they use in others.

    torch has a number for each thread, and a default. At its first operator a thread replaces its own number by the
    default (ATen/ParallelOpenMP.cpp, `lazy_init_num_threads`). Reading the
    number counts as a first operator, so it is read before it is set. Otherwise a `set_num_threads` in another thread
    would reach this one, and every small resize would wait for a team of threads.
    """
    import torch

    torch.get_num_threads()
    torch.set_num_threads(1)


@contextlib.contextmanager
def threads_of_forwards(count: int) -> Iterator[None]:
    """Let torch's operators use `count` threads in the calling thread; restore the number at the end of the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def threads_beside_forwards(count: int, forward: int) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads for work beside forwards.

    At the end of the block, work that has not started is dropped. torch's numbers of threads are restored: that of the
    calling thread, and the default, which each thread of the pool changed when it started.

    Args:
        count: number of threads in the pool. torch's operators use one thread in each.
        forward: number of threads that torch's operators use in the calling thread.
    """
    import torch

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "slg-image", initializer=use_one_thread)
    try:
        # The first thread of the pool changes torch's default. Wait for that, then set this thread's own number.
        pool.submit(int).result()
        torch.set_num_threads(forward)
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let numpy's products of matrices use one thread, everywhere in the process, until the end of the block.

    Several would add up the same numbers in another order, and those of calls in parallel would stand in each other's
    way. Environment variables count only before numpy is imported.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@contextlib.contextmanager
def one_thread_of_libraries() -> Iterator[None]:
    """Let products of matrices and OpenMP use one thread, everywhere in the process, until the end of the block.

    Then results do not depend on how many cores there are.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
