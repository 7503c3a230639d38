"""Waits with a deadline that count only the time in which this process ran."""

from __future__ import annotations

from collections.abc import Callable

SLICE = 0.25  # seconds


def wait_running(wait: Callable[[float], bool], seconds: float) -> bool:
    """Wait for something, `seconds` at most; return whether it came.

    Args:
        wait: waits for it so many seconds at most, and returns whether it came: the `wait` of an event, or the `poll`
            of a pipe.
        seconds: of the whole wait.

    The wait is in slices, so that a stop of the process (SIGSTOP, a suspended job) counts as one of them at most. Those
    who should set the event were stopped too.
    """
    left = seconds
    while not wait(min(left, SLICE)):
        left -= SLICE
        if left <= 0:
            return False
    return True
