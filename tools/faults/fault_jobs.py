"""Start runs of `slg-wds`, follow the lines that they print, and kill them or their workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

LIMIT = 240.0  # seconds that any wait may take, far more than it should


class Run:
    """A running command, in its own session as if started from a terminal. `said` collects the lines of its stderr."""

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        _started.append(self)
        self.said: list[str] = []
        self.printed: list[str] = []
        pairs = ((self.process.stderr, self.said), (self.process.stdout, self.printed))
        self._readers = [threading.Thread(target=_read, args=pair, daemon=True) for pair in pairs]
        for reader in self._readers:
            reader.start()

    @property
    def shards(self) -> int:
        """The number of shards that it has reported."""
        return sum(line.startswith("train-") for line in self.said)

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def wait_for_shards(self, count: int) -> bool:
        """Wait until it has reported so many shards (True), or has ended before that (False)."""
        wait_until(lambda: self.shards >= count or not self.running)
        return self.running

    def workers(self, word: str = "spawn_main") -> list[int]:
        """Return its workers: its descendants whose command line contains a word."""
        return [pid for pid in below(self.process.pid) if word in command_line(pid)]

    def kill(self) -> None:
        """Kill the process, but not its descendants."""
        self.process.kill()

    def end(self) -> int:
        """Wait until it and all processes that hold its stderr have ended; return its exit code."""
        code = self.process.wait(LIMIT)
        for reader in self._readers:
            reader.join(LIMIT)
        assert not any(reader.is_alive() for reader in self._readers), "processes outlive the run"
        return code

    def check(self) -> None:
        """Wait for its end. Raises RuntimeError with its last lines if it failed."""
        if self.end() != 0:
            raise RuntimeError(f"exit code {self.process.returncode}: {' / '.join(self.said[-3:])}")

    @property
    def text(self) -> str:
        """Everything that it has printed to stderr."""
        return "\n".join(self.said)

    @property
    def restarts(self) -> int:
        """The number of workers that it has started again."""
        return sum("started again" in line for line in self.said)


_started: list[Run] = []


def end_all() -> None:
    """Kill all processes that are left of all runs."""
    while _started:
        run = _started.pop()
        for pid in [*below(run.process.pid), run.process.pid]:
            if run.running:
                kill(pid)
        run.process.wait()


def _read(stream: IO[str], lines: list[str]) -> None:
    with stream:
        for line in stream:  # one by one: others wait for them
            lines.append(line.rstrip("\n"))  # noqa: PERF401


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition. Raises TimeoutError if it does not come true."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.01)


def below(pid: int) -> list[int]:
    """Return the descendants of a process (Linux)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def command_line(pid: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def alive(pid: int) -> bool:
    """Return whether a process exists and has not ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill(pid: int) -> bool:
    """Kill a process that this program started; return whether it still existed."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
