"""The average by which the best student was chosen is what is validated later, and what becomes a teacher."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import slg_wds
from slg_wds.training.command import main
from support.models.names import TINY
from support.sets.replay_sets import write_class_map
from support.training import rows_of, train


@pytest.fixture(scope="module")
def data(photographs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "train").symlink_to(photographs / "train")
    (folder / "val").symlink_to(photographs / "train")
    write_class_map(photographs, folder / "map")
    return folder


def trained(folder: Path, labels: str, data: Path, *more: str) -> dict[str, str]:
    """A short training with steps so large that the average is far from the weights; its last row."""
    flags = ("-a", TINY, "--lr", "0.5", "--epochs", "2", "--num_crops", "1", "--class-map", str(data / "map"))
    train(folder, labels, data, *flags, *more)
    return rows_of(folder)[-1]


def test_the_average_of_a_checkpoint_is_validated_and_teaches(labels, data, tmp_path, capsys):
    row = trained(tmp_path, labels, data, "--ema", "0.9999999")  # it stays what the student was at the start
    raw, average = ([float(row[f"{name}_top{n}"]) for n in (1, 5)] for name in ("eval", "eval_ema"))
    assert raw != average
    capsys.readouterr()
    student, classes = str(tmp_path / "checkpoint.pth.tar"), ["--class-map", str(data / "map")]
    assert main(["-a", TINY, "-e", "--resume", student, "-j", "1", *classes, str(data)]) == 0
    said = capsys.readouterr().out
    assert "of training: top-1 {:.2f}%, top-5 {:.2f}%".format(*raw) in said
    assert "average of weights, top-1 {:.2f}%, top-5 {:.2f}%".format(*average) in said
    found = slg_wds.evaluate(
        slg_wds.EvaluateConfig(
            data=str(data), arch=TINY, teacher_source="private", teacher_path=student, class_map=classes[1],
            split="val",
        )
    )  # fmt: skip
    assert [100 * found.top1, 100 * found.top5] == pytest.approx(average, abs=1e-3)
    assert "checkpoint.pth.tar [ema]" in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_no_average_is_made_up_to_be_validated(labels, data, tmp_path, capsys):
    trained(tmp_path, labels, data)
    words = ["-a", TINY, "-e", "--resume", str(tmp_path / "checkpoint.pth.tar"), "-j", "1", "--ema", "0.9"]
    capsys.readouterr()
    assert main([*words, "--class-map", str(data / "map"), str(data)]) == 0
    said = capsys.readouterr().out
    assert said.count("top-1") == 1 and "average" not in said
