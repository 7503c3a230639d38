"""How long this process was stopped (SIGSTOP, a suspended machine). In that time no store could answer it."""

from __future__ import annotations

import functools
import threading
import time

TICK = 0.5  # seconds
LATE = 2.0  # seconds: a tick that is later than a busy machine explains means a stop


class StopClock:
    """Counts the seconds for which the process was stopped, with a thread that should wake every TICK."""

    def __init__(self) -> None:
        # (seconds stopped, when last awake): one tuple, so that other threads never read values of two moments.
        self._state = (0.0, time.monotonic())
        threading.Thread(target=self._run, name="slg-stops", daemon=True).start()

    def seconds(self) -> float:
        """Return the seconds stopped up to now, even if the thread has not woken yet since the last stop."""
        stopped, last = self._state
        return stopped + self._pause(last, time.monotonic())

    @staticmethod
    def _pause(last: float, now: float) -> float:
        pause = now - last - TICK
        return pause if pause > LATE else 0.0

    def _run(self) -> None:
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            stopped, last = self._state
            self._state = stopped + self._pause(last, now), now


@functools.cache
def _stops() -> StopClock:
    return StopClock()


def seconds_stopped() -> float:
    """Return the seconds for which this process was stopped since the first call."""
    return _stops().seconds()
