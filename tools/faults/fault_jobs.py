"""Runs of `slg-wds` that are to be disturbed: started, followed by the lines they print, killed."""

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
    """A command under way, in a session of its own as from a terminal. `said` grows by the lines of its stderr."""

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
        """How many shards it has told of."""
        return sum(line.startswith("train-") for line in self.said)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait_for_shards(self, count: int) -> bool:
        """Return when it has told of so many shards, True, or has ended before, False."""
        wait_until(lambda: self.shards >= count or not self.running)
        return self.running

    def workers(self, word: str = "spawn_main") -> list[int]:
        """Processes below it whose command line has a word: its workers."""
        return [pid for pid in below(self.process.pid) if word in command_line(pid)]

    def kill(self) -> None:
        """SIGKILL, to the process alone."""
        self.process.kill()

    def end(self) -> int:
        """Wait for its end, and that of all that held its stderr; return its exit code."""
        code = self.process.wait(LIMIT)
        for reader in self._readers:
            reader.join(LIMIT)
        assert not any(reader.is_alive() for reader in self._readers), "processes outlive the run"
        return code

    def check(self) -> None:
        """Wait for its end. Raises RuntimeError, with its last words, where that was not a success."""
        if self.end() != 0:
            raise RuntimeError(f"exit code {self.process.returncode}: {' / '.join(self.said[-3:])}")

    @property
    def text(self) -> str:
        """All that it has said on stderr."""
        return "\n".join(self.said)

    @property
    def restarts(self) -> int:
        """How many workers it has started again."""
        return sum("started again" in line for line in self.said)


_started: list[Run] = []


def end_all() -> None:
    """Kill whatever is left of all runs."""
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
    """Raises TimeoutError where it does not come true."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.01)


def below(pid: int) -> list[int]:
    """The processes that a process has started, and theirs (Linux)."""
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
    """How a process was started; empty where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill(pid: int) -> bool:
    """SIGKILL to a process that this script has started; whether it was there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
