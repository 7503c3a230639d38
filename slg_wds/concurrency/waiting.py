"""Waits with a deadline that count only the time in which this process ran."""

from __future__ import annotations

import threading

SLICE = 0.25  # seconds


def wait_running(event: threading.Event, seconds: float) -> bool:
    """Wait for an event, `seconds` at most; return whether it was set.

    The wait is in slices, so that a stop of the process (SIGSTOP, a suspended job) counts as one of them at most. Those
    who should set the event were stopped too.
    """
    left = seconds
    while not event.wait(min(left, SLICE)):
        left -= SLICE
        if left <= 0:
            return False
    return True
