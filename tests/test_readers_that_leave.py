"""Whoever reads the output may leave, as `head` does: the command ends without a word."""

from __future__ import annotations

import os
import subprocess
import sys

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
