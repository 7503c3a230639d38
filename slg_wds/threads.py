"""Threads of our own beside torch's."""

from __future__ import annotations


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
