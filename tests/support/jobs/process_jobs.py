"""Functions that worker processes of tests run; in a module of their own, so that they can be pickled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from slg_wds.errors import ChecksumError


def numbers(worker: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield every `count`-th number below 10, with the process that counts."""
    for number in range(worker, 10, count):
        yield number, os.getpid()


def killed(worker: int, count: int) -> Iterator[int]:
    """Kill worker 1 after its first item, as the kernel does where memory is out; the others wait."""
    yield os.getpid()
    if worker == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def failing(worker: int, count: int) -> Iterator[int]:
    """Raise an error in worker 1; the others wait."""
    yield os.getpid()
    if worker == 1:
        raise ChecksumError("a byte is wrong", shard="train-000001.tar")
    time.sleep(60)


def waiting(worker: int, count: int) -> Iterator[int]:
    """Yield one item and wait."""
    yield os.getpid()
    time.sleep(60)


def stuck(worker: int, count: int) -> Iterator[int]:
    """Yield one item and wait, as in a call that no signal interrupts."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield from waiting(worker, count)
