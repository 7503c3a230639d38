"""The environments that the tools create have the packages that they need and no others."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.paths import TOOLS

# Stands for every program of the environment: packages would have to be downloaded.
PROGRAM = """#!/usr/bin/env bash
[ "$1" = -c ] && exit 0
if [ "$2" = venv ]; then
    mkdir -p "$3/bin"
    for name in python slg-wds ruff; do cp "$0" "$3/bin/$name"; done
fi
echo "${0##*/} $*" >> "$CALLS"
"""


class Machine:
    """Runs the tools with such an environment; `installed` are the extras that each call had installed."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        (folder / "python").write_text(PROGRAM)
        (folder / "python").chmod(0o755)
        self.output = folder / "output"
        self.environment = {
            **os.environ,
            "SLG_WDS_ENV": str(folder / "environment"),
            "SLG_WDS_PYTHON": str(folder / "python"),
            "SLG_WDS_UV": "",
            "CALLS": str(self.calls),
        }

    def installed(self, tool: str, *arguments: str) -> list[str]:
        self.calls.write_text("")
        command = [str(TOOLS / tool), *arguments]
        subprocess.run(command, check=True, env=self.environment, capture_output=True)
        return re.findall(r"--editable .*\[(.*)\]", self.calls.read_text())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_demo_installs_nothing_for_tests(machine):
    assert machine.installed("demo", str(machine.output)) == ["demo"]
    assert machine.installed("demo", str(machine.output)) == []


def test_tests_add_what_they_need(machine):
    machine.installed("demo", str(machine.output))
    assert machine.installed("check") == ["demo,test"]
    assert "venv" not in machine.calls.read_text()
    assert machine.installed("check") == [] and machine.installed("demo", str(machine.output)) == []


def test_tests_alone(machine):
    assert machine.installed("check") == ["demo,test"]
    assert "-m venv" in machine.calls.read_text() and machine.installed("demo", str(machine.output)) == []


def test_another_project_file_installs_anew(machine):
    machine.installed("check")
    stamp = Path(machine.environment["SLG_WDS_ENV"]) / "slg-wds-stamp"
    stamp.write_text("another\ndemo test\n")
    assert machine.installed("demo", str(machine.output)) == ["demo"]


def test_a_uv_installs_in_pips_place(machine, tmp_path):
    uv = tmp_path / "uv"
    uv.write_text(PROGRAM)
    uv.chmod(0o755)
    machine.environment["SLG_WDS_UV"] = str(uv)
    assert machine.installed("check") == ["demo,test"]
    installs = [call for call in machine.calls.read_text().splitlines() if " install " in call]
    assert installs and all(call.startswith("uv pip install") for call in installs)
