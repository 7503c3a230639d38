"""Ctrl-C at any moment of a command: no traceback, and the exit code that the command line promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from support.servers.scripted import KEYS, serving

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


def heed(handler=signal.default_int_handler):
    """Handle Ctrl-C as in a terminal, even if the tests run in the background."""
    signal.signal(signal.SIGINT, handler)


def run(place, handler=signal.default_int_handler):
    return subprocess.run(
        [sys.executable, "-c", INTERRUPTED, place],
        capture_output=True,
        text=True,
        preexec_fn=lambda: heed(handler),
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


# Runs a command with short deadlines.
HASTY = """
import runpy, sys
from slg_wds import interrupts
interrupts.QUIET_SECONDS, interrupts.MOST_SECONDS = 0.2, float(sys.argv.pop(1))
runpy.run_module("slg_wds", run_name="__main__")
"""


@pytest.fixture
def waiting():
    """Start `inspect` of a server that never answers, and wait until it is asked."""
    asked, over, started = threading.Event(), threading.Event(), []

    def never(*_):
        asked.set()
        over.wait(60)

    def start(most):
        options = [f"{name}={value}" for name, value in {**KEYS, "endpoint": server.url}.items()]
        command = [
            sys.executable,
            "-c",
            HASTY,
            most,
            "inspect",
            "s3://bucket/set",
            "--store-option",
            *options,
        ]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        started.append(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heed)
        )
        assert asked.wait(60)
        return started[0]

    with serving(never, first_contact=False) as server:
        try:
            yield start
        finally:
            over.set()
            for process in started:
                process.kill()
                process.communicate()


def test_a_command_that_waits_for_a_store_ends_within_seconds(waiting):
    process = waiting("0.7")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=9)[1].splitlines()
    assert process.returncode == 130
    assert "it ends within" in said[0] and said[1] == "slg-wds inspect: interrupted"


def test_another_one_ends_it_at_once(waiting):
    process = waiting("60")
    process.send_signal(signal.SIGINT)
    assert "at once with another Ctrl-C" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(9) == 130
