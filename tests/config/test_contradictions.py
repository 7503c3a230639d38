"""Options that contradict each other are refused before anything is opened."""

from __future__ import annotations

import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import UsageError

GENERATE = ["generate", "images", "-a", "resnet18", "--save-path", "labels"]
EVALUATE = ["evaluate", "images", "-a", "resnet18"]
IMPORT = ["import", "files", "--images", "images", "--save-path", "labels"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ([*GENERATE, "--no-targets", "--class-map", "map"], "--class-map says how targets are read"),
        ([*GENERATE, "--no-targets", "--target-field", "cls"], "--target-field says how targets are read"),
        ([*EVALUATE, "--no-targets", "--class-map", "map"], "--class-map says how targets are read"),
        ([*IMPORT, "--no-targets", "--class-map", "map"], "--class-map says how targets are read"),
        ([*GENERATE, "--class-subset", "numbers", "--no-targets", "--class-map", "map"], "--no-targets"),
        ([*GENERATE, "--max-left-out", "0.1"], "--max-left-out is for --on-error skip"),
        ([*IMPORT, "--max-left-out", "0.1"], "--max-left-out is for --on-error skip"),
        ([*GENERATE, "--evaluate", "--dry-run"], "--dry-run and --evaluate ask for two different things"),
    ],
)
def test_a_contradiction_is_one_line_and_opens_nothing(tmp_path, monkeypatch, capsys, command, named):
    monkeypatch.chdir(tmp_path)
    assert main(command) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and named in lines[0], lines
    assert not list(tmp_path.iterdir())


def test_a_class_map_without_targets_may_be_for_the_subset():
    about = {"data": "images", "arch": "resnet18", "save_path": "labels", "class_map": "map"}
    slg_wds.GenerateConfig(**about, no_targets=True, class_subset="auto").check()
    with pytest.raises(UsageError, match="--no-targets"):
        slg_wds.GenerateConfig(**about, no_targets=True).check()
