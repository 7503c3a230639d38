"""Runs each part in a process of its own. What one part does to its process, or to the GPU, harms no other part.

All processes start at once and import what they need, which takes seconds, and then wait for their turns. A part that
takes too long is killed; its findings are on disk by then. The report is written again every second, so whoever ends
this program loses at most the last second of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu_parts.parts import Part
from gpu_parts.supervision.bars import BARS, PREDICTED

CHILD = Path(__file__).with_name("child.py")
IMPORTS = 120.0  # seconds that a process may take until it is ready
GRACE = 20.0  # seconds from the end of a part's time until it is killed
LEAST = 5.0  # seconds that are worth a beginning
LOG = 4000  # characters of the output of a part that went wrong


class Child:
    """The process of one part.

    Args:
        name: of the part.
        runs: what it runs, module:function.
        device, quick, folder: as for `Findings`.
    """

    def __init__(self, name: str, runs: str, device: str, quick: bool, folder: Path) -> None:
        self.name, self.file, self._log = name, folder / f"{name}.json", folder / f"{name}.log"
        command = [sys.executable, str(CHILD), runs, str(self.file), device, str(quick), str(folder)]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, start_new_session=True
            )

    def begin(self, seconds: float) -> None:
        """Give it its turn."""
        self._say(f"{seconds}\n")

    def _say(self, text: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended, or had its turn
            self.process.stdin.write(text)
            self.process.stdin.close()

    @property
    def begun(self) -> bool:
        return self.file.exists()

    def ended(self, within: float) -> bool:
        """Wait at most so many seconds for its end."""
        try:
            self.process.wait(max(0.0, within))
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it and all that it started; before that it writes to its log where each of its threads is."""
        if self.process.poll() is None and self.begun:
            self.process.send_signal(signal.SIGUSR1)
            self.ended(1.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._say("")
        self.process.wait()

    def findings(self) -> dict[str, Any]:
        """Return what it has found so far."""
        try:
            found: dict[str, Any] = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def log(self) -> str:
        """Return the end of what it printed."""
        return self._log.read_text(errors="replace")[-LOG:]


class Run:
    """All parts, one after the other, and the report of them.

    Args:
        parts: by name, in the order in which they run.
        device, quick: as for `Findings`.
        folder: an empty one.
        seconds: the whole run ends after these.
        out: file for the report.
    """

    def __init__(
        self, parts: Mapping[str, Part], device: str, quick: bool, folder: Path, seconds: float, out: Path
    ) -> None:
        self._start = time.monotonic()
        self._end, self._out = self._start + seconds, out
        self._parts, self._ended, self._logs = parts, dict.fromkeys(parts, "not begun"), {}
        self.children = {name: Child(name, part.runs, device, quick, folder) for name, part in parts.items()}

    def run(self) -> dict[str, Any]:
        """Run the parts, and return the report."""
        try:
            for name, child in self.children.items():
                self._turn(name, child)
                if child.findings().get("stop"):
                    break
        finally:
            for child in self.children.values():
                child.kill()
        return self._write()

    def _turn(self, name: str, child: Child) -> None:
        left = self._end - time.monotonic()
        if left < LEAST:
            return
        seconds = max(LEAST, min(self._parts[name].seconds, left - min(GRACE, left / 4)))
        print(f"{name} ...", file=sys.stderr, flush=True)
        child.begin(seconds)
        ready = self._wait(child, min(IMPORTS, left), until_begun=True)
        ended = ready and self._wait(child, min(seconds + GRACE, self._end - time.monotonic()))
        child.kill()
        self._ended[name] = self._how(child, ended)
        if self._ended[name] != "ok":
            self._logs[name] = child.log()
            print(f"{name}: {self._ended[name]}\n{child.log()}", file=sys.stderr, flush=True)
        self._write()

    def _wait(self, child: Child, seconds: float, until_begun: bool = False) -> bool:
        """Wait until it has ended, or has begun. Return whether it did so in time."""
        end = time.monotonic() + seconds
        while not child.ended(min(0.2 if until_begun else 1.0, end - time.monotonic())):
            if until_begun and child.begun:
                return True
            if time.monotonic() >= end:
                return False
            if not until_begun:
                self._ended[child.name] = "running"
                self._write()
        return True

    @staticmethod
    def _how(child: Child, ended: bool) -> str:
        found, code = child.findings(), child.process.returncode
        if not ended:
            return f"killed at: {found.get('now') or 'its start'}"
        return "ok" if code == 0 and found else f"ended with exit code {code}"

    def _write(self) -> dict[str, Any]:
        report = self._report()
        aside = self._out.with_name(f"{self._out.name}.new")
        aside.write_text(json.dumps(report, indent=1) + "\n")
        aside.replace(self._out)
        return report

    def _report(self) -> dict[str, Any]:
        found = {name: child.findings() for name, child in self.children.items()}
        bars = {
            name: {"found": None, "wanted": BARS[name], "met": None, "predicted": PREDICTED[name]}
            for name in BARS
        }
        for one in found.values():
            bars |= one.get("bars", {})
        wrong = [f"{name}: {what}" for name, one in found.items() for what in one.get("failed", [])]
        wrong += [
            f"{name}: {how}" for name, how in self._ended.items() if how not in ("ok", "not begun", "running")
        ]
        left_out = [f"{name}: {what}" for name, one in found.items() for what in one.get("left_out", [])]
        left_out += [f"{name}: all of it" for name, how in self._ended.items() if how == "not begun"]
        return {
            "seconds": round(time.monotonic() - self._start, 1),
            "failed": wrong,
            "missed": [name for name, bar in bars.items() if bar["met"] is False],
            "not_measured": [name for name, bar in bars.items() if bar["met"] is None],
            "left_out": left_out,
            "bars": bars,
            "ended": self._ended,
            "parts": found,
            "logs": self._logs,
        }  # fmt: skip
