"""How far something is, shown in place while it goes on: a bar on a terminal, one output of a notebook's cell."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from slg_wds import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PAUSE = 0.25  # seconds between two states of a notebook's output
WIDTH = 40  # of a notebook's bar


class Live(Protocol):
    """A display that changes in place. Threads may call it at once."""

    def show(self, done: int, text: str) -> None:
        """So much is done; `text` says more of it."""

    def say(self, line: str) -> None:
        """Print a line that stays, apart from the display."""

    def stop(self) -> None:
        """Show the last state for good."""


def live_display(total: int, done: int, noun: str) -> Live | None:
    """Begin to show `done` of `total`; None where only lines can be printed."""
    if shell := _notebook():
        return NotebookBar(shell, total, done, noun)
    return TerminalBar(total, done, noun) if sys.stderr.isatty() else None


class TerminalBar:
    """A bar on stderr."""

    def __init__(self, total: int, done: int, noun: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar: Progress = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[noun]} {task.fields[text]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True, force_jupyter=False),
            speed_estimate_period=60,
        )
        self._task: TaskID = self.bar.add_task("", total=total, completed=done, noun=noun, text="")
        self.bar.start()

    def show(self, done: int, text: str) -> None:
        self.bar.update(self._task, completed=done, text=console.shown(text))

    def say(self, line: str) -> None:
        self.bar.console.print(console.as_text(line), highlight=False)

    def stop(self) -> None:
        self.bar.stop()


class NotebookBar:
    """One output of a cell, whose text is replaced. rich would add one output after another."""

    def __init__(self, display: Any, total: int, done: int, noun: str) -> None:
        self._total, self._done, self._noun, self._text = total, done, noun, ""
        self._began, self._first = time.monotonic(), done
        self._lock = threading.Lock()
        self._handle = display({"text/plain": self._line()}, raw=True, display_id=True)
        self._shown = time.monotonic()

    def show(self, done: int, text: str) -> None:
        with self._lock:
            self._done, self._text = done, text
            if time.monotonic() - self._shown >= PAUSE:
                self._update()

    def say(self, line: str) -> None:
        console.note(line)

    def stop(self) -> None:
        with self._lock:
            self._update()

    def _update(self) -> None:
        self._handle.update({"text/plain": self._line()}, raw=True)
        self._shown = time.monotonic()

    def _line(self) -> str:
        part = self._done / self._total if self._total else 1.0
        bar = "#" * int(WIDTH * part)
        rate = (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)
        left = f", about {console.duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        text = f"[{bar:-<{WIDTH}}] {self._done:,}/{self._total:,} {self._noun} {self._text}{left}"
        return console.shown(text)


def _notebook() -> Any:
    """IPython's display, where this code runs in a notebook's kernel; else None."""
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    from IPython.display import display

    return display
