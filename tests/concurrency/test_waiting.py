"""A deadline counts only the time in which the process ran."""

from __future__ import annotations

import threading
import time

from slg_wds.concurrency.waiting import SLICE, wait_running

DEADLINE = 3 * SLICE


class Stopped(threading.Event):
    """An event in a process that is stopped in the first wait for it, for longer than the deadline.

    The wait then takes longer than it was asked to, and that is all a process sees of a stop. After a real one
    (SIGSTOP) the test would go by how fast the machine goes on.
    """

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        if self.waits == 1:
            time.sleep(DEADLINE + SLICE)
        else:  # those who set it go on too
            self.set()
        return self.is_set()


def test_a_wait_ends_with_the_event_or_the_deadline():
    event = threading.Event()
    begin = time.monotonic()
    assert not wait_running(event.wait, 0.01) and not wait_running(event.wait, DEADLINE)
    assert time.monotonic() - begin >= DEADLINE
    event.set()
    assert wait_running(event.wait, 0.01) and wait_running(event.wait, threading.TIMEOUT_MAX)


def test_a_stop_of_the_process_is_not_waited_time():
    event = Stopped()
    assert wait_running(event.wait, DEADLINE)
    assert event.waits == 2
