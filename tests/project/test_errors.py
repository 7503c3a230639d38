"""Every class of errors, raised by a real wrong input: it names the place, and the command prints one line."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import slg_wds
from slg_wds import cli, errors
from support.errors import rows as error_rows  # noqa: F401  # fills the table
from support.errors.world import ROWS, World
from support.sets import trust_sets

NEVER_RAISED_THEMSELVES = {errors.FormatError}


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("errors")
    images = trust_sets.small_photographs(photographs, folder / "images")
    return trust_sets.make(images, folder / "labels"), images


@pytest.fixture
def world(made, tmp_path):
    with contextlib.ExitStack() as stack:
        yield World(tmp_path, *made, stack)


def every_class() -> set[type[errors.SlgWdsError]]:
    found = (value for value in vars(errors).values() if isinstance(value, type))
    return {kind for kind in found if issubclass(kind, errors.SlgWdsError)}


def test_the_table_is_of_all_classes():
    assert set(ROWS) == every_class() - NEVER_RAISED_THEMSELVES


def test_what_is_no_row_is_never_raised_itself():
    names = {kind.__name__ for kind in NEVER_RAISED_THEMSELVES}
    for path in Path(slg_wds.__file__).parent.rglob("*.py"):
        calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        assert not names & {ast.unparse(call).rpartition(".")[2] for call in calls}, path


def raised_by(call: Any) -> errors.SlgWdsError:
    """The error of a public call, or of a command's body."""
    with pytest.raises(errors.SlgWdsError) as raised:
        if callable(call):
            call()
        else:
            name, *rest = call
            command = cli.COMMANDS[name]
            cli._resolve(command.body)(cli._parse(name, cli._resolve(command.config), rest))
    return raised.value


def ran(arguments: list[str]) -> tuple[int, str]:
    """Exit code and stderr of the command: of a real process where it starts quickly."""
    if arguments[0] == "inspect":
        command = [sys.executable, "-W", "error", "-m", "slg_wds", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.stdout == ""
        return done.returncode, done.stderr
    with contextlib.redirect_stderr(io.StringIO()) as said:
        return cli.main(arguments), said.getvalue()


def without_times(text: str) -> str:
    """Remove from a text what differs between two runs: times, and which worker was the last."""
    return re.sub(r"\d[\d.]*(ms|s)\b|worker \d", "", text)


def rows() -> list[object]:
    slow = {errors.SlgWdsError}  # six processes that import torch
    return [pytest.param(kind, marks=[pytest.mark.slow] * (kind in slow), id=kind.__name__) for kind in ROWS]


@pytest.mark.parametrize("kind", rows())
def test_error(world, kind):
    call, said = ROWS[kind]
    call = call(world)
    error = raised_by(call)
    assert type(error) is kind, error
    for name, wanted in said.items():
        assert re.search(wanted, str(getattr(error, name))), (name, wanted, str(error))
    assert "\n" not in str(error)
    if callable(call):
        return
    code, text = ran(call)
    assert code == {errors.UsageError: 2, errors.IncompleteSetError: 3}.get(kind, 1), text
    assert without_times(text.splitlines()[-1]) == without_times(f"slg-wds {call[0]}: {error}")
    assert "Traceback" not in text


def test_commands_that_fail_leave_nothing(world):
    for kind in (errors.ImageTooLargeError, errors.LabelFileError, errors.TeacherOutputError):
        raised_by(ROWS[kind][0](world))
        assert not list(world.folder.rglob("new/*.tar"))
        assert not (world.folder / "new" / "_info.json").exists()
