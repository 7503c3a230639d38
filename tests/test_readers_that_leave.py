"""What becomes of the output: whoever reads it may leave, its disk may be full, its terminal may be closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.sets import reported_sets


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return reported_sets.label_set(tmp_path_factory.mktemp("left") / "set", embedded=False).url


@pytest.mark.parametrize("arguments", ["-h", "inspect SET", "inspect SET --json", "generate --help"])
def test_nothing_is_said(labels, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "slg_wds", *arguments.replace("SET", labels).split()]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert done.stderr == "" and done.returncode in (0, 141)


def test_a_broken_pipe_of_something_else_is_no_silence(monkeypatch):
    from slg_wds import cli

    def fail(*_: object) -> int:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(BrokenPipeError, match="a worker's"):
        cli.main(["inspect"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    ["-h", "inspect SET", "inspect SET --json", "verify SET", "generate --help", "train --help"],
)
def test_a_full_disk_is_one_line_and_an_exit_code(labels, arguments, buffered):
    command = [sys.executable, "-m", "slg_wds", *arguments.replace("SET", labels).split()]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": buffered},
        )
    assert (
        done.stderr == "slg-wds: stdout cannot be written: No space left on device\n" and done.returncode == 1
    )


PROGRESS = """
import sys
from slg_wds.engines.reports.progress import RunProgress
from slg_wds.engines.reports.run_stats import RunStarted, RunStats
with RunProgress(RunStats()) as progress:
    progress.begin(RunStarted("digest", shards=2, crops=30, notes=["a teacher"]))
    sys.stdin.read()
    progress.shard("train-000000", RunStats(crops=20, shards=1), True)
    progress.say("a worker ended")
print("finished")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_a_log_on_a_full_disk_does_not_end_a_run():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", PROGRESS]
        done = subprocess.run(command, input="", stdout=subprocess.PIPE, stderr=full, text=True)
    assert (done.stdout, done.returncode) == ("finished\n", 0)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_a_terminal_that_is_closed_does_not_end_a_run():
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", PROGRESS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": theirs}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as run:
        os.close(theirs)
        shown = b""
        while b"crops" not in shown:  # the bar has been drawn
            shown += os.read(ours, 1000)
        os.close(ours)
        assert (run.communicate()[0], run.returncode) == ("finished\n", 0)


def test_a_fault_of_another_file_is_not_blamed_on_stdout(monkeypatch, capsys):
    from slg_wds import cli

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device", "somewhere else")

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(OSError, match="somewhere else"):
        cli.main(["inspect"])
    assert not capsys.readouterr().err
