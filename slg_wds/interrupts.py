"""How Ctrl-C and SIGTERM end a command: without a traceback, and within seconds.

The first signal raises KeyboardInterrupt: workers are stopped, temporary files removed. If a thread waits for an object
store that is away, that would take minutes. So another thread follows the signals, and ends the process after
MOST_SECONDS. That harms nothing, since a shard is committed in one step.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from slg_wds.console import note

INTERRUPTED = 130  # exit code, as a shell calls the end by SIGINT
QUIET_SECONDS = 3.0  # until it is said that the end takes longer
MOST_SECONDS = 15.0  # from the first signal to the end; workers have 10
NUMBERS = (signal.SIGINT, signal.SIGTERM)

_own = False


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C.

    Had a KeyboardInterrupt itself left code that a library made of text, as dataclasses does on import, Python would
    end the process by SIGINT, whatever its exit code.
    """


def own_process() -> None:
    """Let `raised` end this process if need be: it runs one command and nothing else."""
    global _own
    _own = True


@contextmanager
def raised(command: str, end: str) -> Iterator[None]:
    """Raise Interrupted in the block at Ctrl-C and SIGTERM. After it both mean what they meant before.

    In a process of our own, only the first signal raises, so that later ones do not disturb the end. Where this process
    ignores Ctrl-C, as a shell's background job does, it goes on to.

    Args:
        command: the command's name for messages.
        end: the message at the end of a command that does not get there itself.
    """
    watch = _Watch(command, end) if _own else None

    def interrupt(number: int, frame: FrameType | None) -> None:
        if watch is None or watch.is_first():
            raise Interrupted

    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number, handler in before.items():
        if number == signal.SIGTERM or handler != signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if watch is not None:
            watch.left = True


class _Watch:
    """A thread that follows the signals of the process, also while the main thread is in a call that does not end.

    Attributes:
        left: the command has said how it ended. The process may still wait for threads.
    """

    def __init__(self, command: str, end: str) -> None:
        self.left = self._raised = False
        self._command, self._end = command, end
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=self._follow, name="slg-interrupts", daemon=True).start()

    def is_first(self) -> bool:
        """Return whether this is the first call."""
        first, self._raised = not self._raised, True
        return first

    def _follow(self) -> None:
        while not self._next(None):
            pass
        begun = time.monotonic()
        time.sleep(QUIET_SECONDS)
        if not self.left:
            within = f"{MOST_SECONDS - QUIET_SECONDS:.0f} s"
            note(f"{self._command}: interrupted; it ends within {within}, or at once with another Ctrl-C")
        while (rest := begun + MOST_SECONDS - time.monotonic()) > 0 and not self._next(rest):
            pass
        if not self.left:
            note(f"{self._command}: {self._end}")
        os._exit(INTERRUPTED)

    def _next(self, seconds: float | None) -> bool:
        """Wait for a signal. Return whether it is one that ends the command."""
        ready, _, _ = select.select([self._reader], [], [], seconds)
        return bool(ready) and os.read(self._reader, 1)[0] in NUMBERS
