"""No command prints names that move a terminal's cursor, forge a line, or cannot be encoded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slg_wds.cli import main
from support.models.names import TINY

EVIL = "[red]evil\x1b[2J\nslg-wds: all is well\x9b1m\u202e"
FOREIGN = "katze-ü-日本"
TEACHER = ["-a", TINY, "--teacher_source", "private", "--num_crops", "4", "--samples-per-shard", "4"]


def images_named(name: str, source: Path, folder: Path) -> Path:
    """Images, one of them broken, and a file that is none, all of that name, in a class folder of that name too."""
    shutil.copytree(source, folder)
    (images := folder / "train" / f"{name}-class").mkdir()
    good = next((source / "train").rglob("*.jpg"))
    shutil.copy(good, images / f"{name}-good.jpg")
    (images / f"{name}-broken.jpg").write_bytes(good.read_bytes()[:200])
    (images / f"a.{name}").write_bytes(b"")
    return folder


def ran(*arguments: object, **environment: str) -> tuple[int, str]:
    """Exit code and all that the command said, as it came out."""
    done = subprocess.run(
        [sys.executable, "-m", "slg_wds", *map(str, arguments)],
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    said = (done.stdout + done.stderr).decode(environment.get("PYTHONIOENCODING", "utf-8"))
    assert "Traceback" not in said, said
    return done.returncode, said


def commands(images: Path, folder: Path) -> dict[str, list[object]]:
    labels, key = folder / "set", next(path for path in images.rglob("*-good.jpg"))
    return {
        "generate fails": ["generate", images, *TEACHER, "--save-path", folder / "failed"],
        "generate": ["generate", images, *TEACHER, "--save-path", labels, "--on-error", "skip"],
        "inspect": ["inspect", labels],
        "inspect json": ["inspect", labels, "--json"],
        "inspect image": ["inspect", labels, "--key", key.relative_to(images / "train")],
        "inspect nothing": ["inspect", labels, "--key", key.name],
        "verify": ["verify", labels, "--processes", "1"],
        "export": ["export", labels, folder / "fkd"],
        "ensemble": ["ensemble", labels, "--save-path", folder / "merged", "--processes", "1"],
        "no such set": ["inspect", folder / key.name],
        "no such option": ["inspect", labels, f"--{key.name}"],
        "no such command": [key.name],
    }


def test_what_names_hold_never_reaches_the_terminal(small_images, tmp_path, capsys):
    images = images_named(EVIL, small_images, tmp_path / "images")
    seen = set()
    for what, arguments in commands(images, tmp_path).items():
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # of the parser
            code = end.code
        said = "".join(capsys.readouterr())
        assert "Traceback" not in said, said
        assert all(line.isprintable() for line in said.split("\n")), (what, said)
        assert not any(line.startswith("slg-wds: all is well") for line in said.split("\n")), (what, said)
        if "[red]evil\\x1b[2J\\nslg-wds: all is well\\x9b1m\\u202e" in said:
            seen.add(what)
        assert code == (0 if what in ("generate", "export", "verify") else code), (what, said)
    assert seen >= {"generate fails", "generate", "export", "inspect", "no such command"}, seen


@pytest.mark.slow
def test_names_that_a_terminal_cannot_print_end_nothing(small_images, tmp_path):
    images = images_named(FOREIGN, small_images, tmp_path / "images")
    environment = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "1"}
    for what, arguments in commands(images, tmp_path).items():
        code, said = ran(*arguments, **environment)
        good = ("generate", "inspect", "inspect json", "inspect image", "verify", "export", "ensemble")
        assert (code == 0) == (what in good), (what, said)
        if what in ("generate", "inspect image", "no such set"):
            assert "\\u65e5\\u672c" in said
