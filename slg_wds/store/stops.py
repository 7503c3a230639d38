"""How long this process was stopped (SIGSTOP, a suspended machine), when it could hear no answer of any store."""

from __future__ import annotations

import functools
import threading
import time

TICK = 0.5  # seconds
LATE = 2.0  # seconds without a tick that even a busy machine does not take


class Stops:
    """Counts the seconds for which the process was stopped, by a thread that should wake every TICK."""

    def __init__(self) -> None:
        self._seconds, self._last = 0.0, time.monotonic()
        threading.Thread(target=self._run, name="slg-stops", daemon=True).start()

    def seconds(self) -> float:
        """Seconds up to now, also where the thread has not woken yet after the last stop."""
        return self._seconds + self._pause(time.monotonic())

    def _pause(self, now: float) -> float:
        pause = now - self._last - TICK
        return pause if pause > LATE else 0.0

    def _run(self) -> None:
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            self._seconds, self._last = self._seconds + self._pause(now), now


@functools.cache
def _stops() -> Stops:
    return Stops()


def seconds_stopped() -> float:
    """Seconds for which this process was stopped since this was first asked."""
    return _stops().seconds()
