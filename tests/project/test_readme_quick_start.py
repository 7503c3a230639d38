"""The README's quick start runs in order, and its output is the one that is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from support.readme.blocks import IN_ORDER, block_with, commands
from support.readme.world import run_here

IN_QUICK_START = [line for line in commands() if any(one in line for one in IN_ORDER)]
QUICK_START = IN_QUICK_START[:3]  # then come other installs


def form(text: str) -> list[str]:
    """Lines without rulers, and without what differs by machine and length of the run: fractions, epochs."""
    lines = [
        re.sub(r"\d+\.\d+%?|\d+%|(?<=^epoch )\d+|(?<=^trained )\d+", "#", " ".join(line.split()))
        for line in text.splitlines()
    ]
    return [line for line in lines if line.strip("─ ")]


def figures(text: str) -> list[float]:
    """The figures of the last two lines of an epoch: accuracies in percent, divergence and agreement."""
    lines = [line.partition("training:")[2] for line in text.splitlines() if line.startswith("epoch")]
    return [float(one) for line in lines[-2:] for one in re.findall(r"\d+\.\d+", line)]


def shown_in(output: str, text: str) -> bool:
    """Whether the lines of a block stand one after the other in an output."""
    said, wanted = form(output), form(text)
    return any(said[at : at + len(wanted)] == wanted for at in range(len(said)))


def quick_start(folder: Path, *, quick: bool) -> list[str]:
    """Run the three commands in an empty folder, with few crops and one epoch if they shall be quick."""
    install, demo, train = QUICK_START
    assert install == "pip install '.[demo]'", "what it installs is in this environment"
    if quick:
        demo += " --num_crops 6"
        train = re.sub(r"--epochs \d+", "--epochs 12", train)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return [run_here(shlex.split(command), {"COLUMNS": "120"}) for command in (demo, train)]


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_quick_start_ends_in_a_trained_student(tmp_path, quick):
    demo, train = quick_start(tmp_path, quick=quick)
    assert shown_in(demo, block_with("text", "what the teacher saw"))
    (command,) = [line for line in QUICK_START if "train" in line]
    assert command in " ".join(demo.replace("\\\n", "").split()), "the command that the demo prints"
    assert (tmp_path / "demo-output/student/checkpoint.pth.tar").exists()
    assert shown_in(train, block_with("text", "top-1"))
    if not quick:
        assert " ".join(block_with("text", "what the teacher saw").split()) in " ".join(demo.split())
        for told, wanted in zip(figures(train), figures(block_with("text", "top-1")), strict=True):
            assert told == pytest.approx(wanted, abs=0.04 if wanted < 1 else 8.4), "one of 12 images is 8.33%"
