"""Progress that is updated in place: a bar on a terminal, or one output of a notebook's cell."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from slg_wds import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PAUSE = 0.25  # seconds between two updates of a notebook's output
LINES_APART = 10.0  # seconds between two lines where nothing is updated in place
DUMB = ("dumb", "unknown")  # values of TERM, as in Emacs' shell: rich updates nothing in place there
WIDTH = 40  # characters of a bar; on a narrow terminal it has less
WORDS = 70  # characters beside a bar on a terminal
Self = TypeVar("Self", bound="LiveDisplay")


class LiveDisplay:
    """Shows progress on stderr. The end of the `with` block leaves the last state on the screen.

    If stderr is a file, a pipe or a dumb terminal, nothing can be updated in place. Then `show` does nothing and
    returns False, and its caller prints lines instead. Several threads may call it at the same time.
    """

    def __init__(self) -> None:
        self._display: Bar | None = None
        self._noted = time.monotonic()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._display is not None:
            self._display.stop()

    def open(self, total: int, done: int, noun: str) -> None:
        """Begin the display.

        Args:
            total: number of things to do.
            done: how many of them are done.
            noun: what the things are, such as `crops`.
        """
        if shell := _notebook():
            self._display = NotebookBar(shell, total, done, noun)
        elif sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in DUMB:
            self._display = TerminalBar(total, done, noun)

    def show(self, done: int, text: str) -> bool:
        """Show how much is done, and a text beside it. Return False if nothing can be updated in place."""
        if self._display is None:
            return False
        self._display.show(done, text)
        return True

    def show_or_note(self, done: int, text: str, line: str) -> None:
        """Show as `show` does. If nothing can be updated in place, print a line, at most every LINES_APART seconds."""
        if not self.show(done, text) and time.monotonic() - self._noted > LINES_APART:
            self._noted = time.monotonic()
            console.note(line)

    def say(self, text: str) -> None:
        """Print a line that stays, above the display if there is one."""
        if self._display is None:
            console.note(text)
        else:
            self._display.say(text)


class Bar(Protocol):
    """One way to show progress in place."""

    def show(self, done: int, text: str) -> None:
        """Show how much is done, and a text beside it."""

    def say(self, line: str) -> None:
        """Print a line that stays, apart from the bar."""

    def stop(self) -> None:
        """Leave the last state on the screen."""


class TerminalBar:
    """A bar on a terminal, drawn by rich."""

    def __init__(self, total: int, done: int, noun: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        console = Console(stderr=True, force_jupyter=False)
        room = min(WIDTH, console.width - WORDS)
        self.bar: Progress = Progress(
            *([BarColumn(room)] if room > 0 else []),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            # On a narrow terminal it takes several lines; nothing else is cut.
            TextColumn("{task.fields[noun]} {task.fields[text]}", markup=False, table_column=Column()),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=console,
            speed_estimate_period=60,
        )
        self._task: TaskID = self.bar.add_task("", total=total, completed=done, noun=noun, text="")
        self.bar.start()

    def show(self, done: int, text: str) -> None:
        """Show how much is done, and a text beside it."""
        self.bar.update(self._task, completed=done, text=console.shown(text))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        with console.losing_notes():
            self.bar.console.print(console.as_text(line), highlight=False)

    def stop(self) -> None:
        """Leave the last state on the screen."""
        with console.losing_notes():
            self.bar.stop()


class NotebookBar:
    """One output of a notebook's cell, whose text is replaced. rich would add a new output at each update."""

    def __init__(self, display: Any, total: int, done: int, noun: str) -> None:
        self._total, self._done, self._noun, self._text = total, done, noun, ""
        self._began, self._first = time.monotonic(), done
        self._lock = threading.Lock()
        self._handle = display({"text/plain": self._line()}, raw=True, display_id=True)
        self._shown = time.monotonic()

    def show(self, done: int, text: str) -> None:
        """Show how much is done, and a text beside it; at most every PAUSE seconds."""
        with self._lock:
            self._done, self._text = done, text
            if time.monotonic() - self._shown >= PAUSE:
                self._update()

    def say(self, line: str) -> None:
        """Print a line below the output."""
        console.note(line)

    def stop(self) -> None:
        """Show the last state."""
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
    """Return IPython's `display` function if this code runs in a notebook's kernel, else None."""
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    from IPython.display import display

    return display


class ImageProgress(LiveDisplay):
    """Shows on stderr how many images are done: in place, else a line every ten seconds.

    Args:
        images: how many there are.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.done = images, 0
        self._started = time.monotonic()
        self.open(images, 0, "images")

    def add(self, images: int) -> None:
        """Count images that are done."""
        self.done += images
        rate = f"{console.per_second(self.done / max(time.monotonic() - self._started, 1e-9))} images/s"
        line = f"{self.done:,}/{console.counted(self.images, 'image')}, {rate}"
        self.show_or_note(self.done, rate, line)
