"""Ctrl-C at any moment of a command: no traceback, and the exit code that the command line promises."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Runs `slg-wds inspect /nowhere`, interrupted where a module is about to be imported, or at the process's end. The
# interrupt comes in code made of text, as dataclasses makes some: Python ends a process where it came, whoever handled
# a plain KeyboardInterrupt since.
INTERRUPTED = """
import atexit, runpy, signal, sys

place = sys.argv.pop()

class Interrupt:
    def find_spec(name, *_):
        if name == place:
            exec("signal.raise_signal(signal.SIGINT)")

sys.meta_path.insert(0, Interrupt)
if place == "end":
    atexit.register(signal.raise_signal, signal.SIGINT)
sys.argv = ["slg-wds", "inspect", "/nowhere"]
runpy.run_module("slg_wds", run_name="__main__")
"""


def run(place, handler=signal.default_int_handler):
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED, place],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )


@pytest.mark.parametrize("place", ["slg_wds.cli", "slg_wds.errors", "re", "slg_wds.config", "end"])
def test_it_ends_a_command_without_a_traceback(place):
    done = run(place)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr and "ignored" not in done.stderr


def test_a_command_that_ignores_it_from_the_start_goes_on():
    """As a job does that a shell's script started in the background."""
    done = run("slg_wds.config", signal.SIG_IGN)
    assert done.returncode == 1 and "no label set" in done.stderr
