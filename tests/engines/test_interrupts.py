"""Only the parent handles Ctrl-C: its workers start with SIGINT blocked. And SIGTERM while Ray starts."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slg_wds.engines.local import run_local
from slg_wds.engines.ray import _handlers_kept
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.engines.workers.pool import WorkerPool
from slg_wds.engines.workers.processes import run_processes


def is_deaf(worker: int, workers: int) -> Iterator[str]:
    """Whether this process was started with SIGINT blocked."""
    yield f"deaf {signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])}"


def say_deaf(worker: int, workers: int, observer: RunObserver) -> None:
    """The same as a task."""
    observer.say(next(is_deaf(worker, workers)))


class Heard(RunObserver):
    """Keeps what workers say."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def main(kind: str) -> None:
    """Run in a process that has started no other yet: with the first, Python also starts a helper of its own."""
    heard = Heard()
    if kind == "run_local":
        run_local(say_deaf, WorkerPool(("cpu", "cpu"), 1), heard)
    else:
        run_processes(is_deaf, 2, heard.say)
    print(*heard.lines, sep="\n")


@pytest.mark.parametrize("kind", ["run_local", "run_processes"])
def test_workers_start_deaf_to_interrupts(kind):
    code = f"import test_interrupts\nif __name__ == '__main__': test_interrupts.main({kind!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent, timeout=100
    )
    assert done.stdout.split("\n")[:2] == ["deaf True"] * 2, done.stdout + done.stderr


def test_a_sigterm_while_ray_starts_is_handled_as_at_any_other_time():
    """Ray installs a handler, before it does what takes seconds, that ends the process without a word."""
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        ours = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit), _handlers_kept():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
            signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)
