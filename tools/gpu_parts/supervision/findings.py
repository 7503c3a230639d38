"""What a part found, written to disk at every step: whatever ends the part, all that it found before stays."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpu_parts.supervision.bars import BARS, PREDICTED

LINES = 25  # of a traceback


class Findings:
    """What one part found.

    Args:
        file: where to keep it, as JSON.
        device: cuda:N or cpu.
        quick: whether models and sizes are small.
        folder: of the whole run, for photographs and label sets.
        seconds: nothing is begun that ends later, counted from now.
    """

    def __init__(self, file: Path, device: str, quick: bool, folder: Path, seconds: float) -> None:
        self.file, self.device, self.quick, self.folder = file, device, quick, folder
        self._start = time.monotonic()
        self._end = self._start + seconds
        self.content: dict[str, Any] = {
            "checks": {},
            "bars": {},
            "figures": {},
            "failed": [],
            "left_out": [],
            "tracebacks": [],
        }
        self.write()

    def begins(self, what: str, takes: float = 5.0) -> bool:
        """Return whether there is time left for something that takes so many seconds; note it if not."""
        if time.monotonic() + takes <= self._end:
            self.write(now=what)
            return True
        self.content["left_out"].append(what)
        self.write()
        return False

    def stop(self, why: str) -> None:
        """Let no further part run."""
        self.content["stop"] = why
        self.content["failed"].append(why)
        self.write()

    def found(self, what: str, value: Any) -> None:
        """Note a figure."""
        self.content["figures"][what] = value
        self.write()

    def holds(self, what: str, right: bool, why: Any = None) -> None:
        """Note whether something is as it should be, and what was seen."""
        self.content["checks"][what] = {"met": bool(right), **({} if why is None else {"seen": why})}
        if not right:
            self.content["failed"].append(what if why is None else f"{what} ({why})")
        self.write()

    def reaches(self, bar: str, value: float) -> None:
        """Compare a figure with its bar. Of several the last one counts."""
        bars = self.content["bars"]
        bars[bar] = {
            "found": value,
            "wanted": BARS[bar],
            "met": value >= BARS[bar],
            "predicted": PREDICTED[bar],
        }
        self.write()

    @contextlib.contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """Note an error inside the block as a failure, and go on after it."""
        try:
            yield
        except Exception as error:
            self.note_error(what, error)

    def note_error(self, what: str, error: BaseException) -> None:
        """Note an error, with the end of its traceback."""
        lines = "".join(traceback.format_exception(error)).splitlines()
        self.content["failed"].append(f"{what}: {type(error).__name__}: {error}"[:2000])
        self.content["tracebacks"].append({what: lines[-LINES:]})
        self.write()

    def of_part(self, part: str) -> dict[str, Any]:
        """Return what another part of this run found; empty where it found nothing."""
        try:
            content: dict[str, Any] = json.loads(self.file.with_name(f"{part}.json").read_text())
        except (OSError, ValueError):
            return {}
        return content

    def write(self, now: str = "") -> None:
        """Write all of it, in a step that a kill cannot cut in two."""
        self.content["seconds"] = round(time.monotonic() - self._start, 1)
        self.content["now"] = now
        aside = self.file.with_suffix(".new")
        aside.write_text(json.dumps(self.content, default=str))
        aside.replace(self.file)
