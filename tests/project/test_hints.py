"""Hints name options that exist, and a command says none that it lacks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import slg_wds
from slg_wds import errors
from slg_wds.cli import COMMANDS, _spellings, main
from slg_wds.training.flags.definitions import make_parser

PACKAGE = Path(slg_wds.__file__).parent
OPTIONS = {name: _spellings(command) or make_parser(name).spellings for name, command in COMMANDS.items()}
# Folders whose errors only these commands say.
COMMANDS_OF = {
    "generation": ("generate", "evaluate"),
    "ensembling": ("ensemble", "verify"),
    "training": ("train",),
    "inspection": ("inspect",),
    "report": ("report",),
    "prototypes": ("prototypes",),
    "demo": ("demo",),
    "interop": ("import", "export"),
}


def texts(node: ast.AST) -> Iterator[str]:
    """The texts that an expression may give, each with {} for what is computed."""
    for one in ast.walk(node):
        if isinstance(one, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in one.values)
        elif isinstance(one, ast.Constant) and isinstance(one.value, str):
            yield one.value


def hints() -> Iterator[tuple[str, str]]:
    """(folder, text) of every hint that the package has."""
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [ast.unparse(one) for one in node.targets] if isinstance(node, ast.Assign) else []
            is_hint = isinstance(node, ast.keyword) and node.arg == "hint"
            if is_hint or any("hint" in name.lower() for name in names):
                yield from ((folder, text) for text in texts(node.value) if "--" in text)


def test_options_in_hints_exist():
    found = list(hints())
    assert len(found) > 60
    for folder, text in found:
        own, *others = text.split("slg-wds ")
        for other in others:
            name = other.partition(" ")[0]
            asked = re.findall(r"--[a-z][\w-]*", other)
            assert {one.replace("_", "-") for one in asked} <= OPTIONS.get(name, set()) | {"--help"}, text
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", own):
            known = [name for name, options in OPTIONS.items() if option in options]
            assert known, text
            assert not COMMANDS_OF.get(folder) or set(known) & set(COMMANDS_OF[folder]), (folder, text)


def test_a_hint_of_another_command_is_not_said():
    error = errors.UsageError(
        "wrong", url="x", hint="give --image-field or --max_pixels; slg-wds verify --fix"
    )
    assert error.for_command({"--image-field", "--max-pixels"}) == str(error)
    assert error.for_command({"--image-field"}) == "wrong (url x)"
    other = errors.UsageError("wrong", hint="slg-wds verify --images DATA lists them, by pip install 'a--b'")
    assert other.for_command(()) == str(other) != errors.UsageError("wrong").for_command(())


@pytest.fixture
def strange_tar(tmp_path: Path) -> str:
    """A tar of images that only an option finds, as val of a data set."""
    from support.images.sources import tar_bytes

    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "0.tar").write_bytes(tar_bytes([("1.input.jpg", b"an image"), ("1.cls", b"1")]))
    return str(tmp_path)


@pytest.mark.parametrize(("command", "hinted"), [("evaluate", True), ("train", False)])
def test_each_command_hints_at_its_own_options(strange_tar, tmp_path, capsys, command, hinted):
    from support.models.names import TINY

    words = ["-a", TINY, strange_tar]
    if command == "train":
        import torch

        from support.models.tiny_teacher import tiny

        torch.save({"state_dict": tiny().state_dict()}, tmp_path / "student.pth.tar")
        words += ["-e", "--resume", str(tmp_path / "student.pth.tar"), "--num_classes", "20"]
    else:
        words += ["--teacher-source", "private"]
    assert main([command, *words]) == 1
    said = capsys.readouterr().err
    assert "the sample '1' at byte 512 has no image (only cls, input.jpg)" in said
    assert ("--image-field input.jpg takes that member as the image" in said) == hinted
    assert "Traceback" not in said
