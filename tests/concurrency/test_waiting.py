"""A deadline counts only the time in which the process ran."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from slg_wds.concurrency.waiting import SLICE, wait_running

DEADLINE = 3 * SLICE
WAITS = """
import threading, time
from slg_wds.concurrency.waiting import wait_running
done = threading.Event()
threading.Timer({after}, lambda: (time.sleep(0.1), done.set())).start()
print("begun", flush=True)
print(wait_running(done, {deadline}))
"""


def test_a_wait_ends_with_the_event_or_the_deadline():
    event = threading.Event()
    begin = time.monotonic()
    assert not wait_running(event, 0.01) and not wait_running(event, DEADLINE)
    assert time.monotonic() - begin >= DEADLINE
    event.set()
    assert wait_running(event, 0.01) and wait_running(event, threading.TIMEOUT_MAX)


def test_a_stop_of_the_process_is_not_waited_time():
    """It is stopped for longer than its deadline, and so is the thread that sets the event after it."""
    code = WAITS.format(after=DEADLINE + 0.2, deadline=DEADLINE)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(DEADLINE + 0.3)
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "True\n"
