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
        self._state = (
            0.0,
            time.monotonic(),
        )  # seconds stopped, last awake: one object, so that both are of one moment
        threading.Thread(target=self._run, name="slg-stops", daemon=True).start()

    def seconds(self) -> float:
        """Seconds up to now, also where the thread has not woken yet after the last stop."""
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
def _stops() -> Stops:
    return Stops()


def seconds_stopped() -> float:
    """Seconds for which this process was stopped since this was first asked."""
    return _stops().seconds()
