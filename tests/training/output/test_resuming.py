"""A resumed run knows where it is from its checkpoint alone, and says what is another than before."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

import slg_wds
from slg_wds.training import loop
from slg_wds.training.command import main
from slg_wds.training.output import checkpoints
from support.sets.replay_sets import make
from support.training import PLAIN, common, rows_of, same

COSINE = ("--num_crops", "1", "--epochs", "4", "--sched", "cosine")


def interrupted(labels: str, images: Path, folder: Path, step: int) -> dict:
    """The checkpoint of a training of four epochs of two steps that was interrupted when it was saved after a step."""

    def save(args, training, best=False):
        kept(args, training, best)
        if training.progress.step == step and bool(training.progress.loader) == bool(step % 2):
            raise KeyboardInterrupt

    kept = loop.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "save", save)
        words = [*common(labels), "-a", PLAIN, *COSINE, "--checkpoint-every", "1"]
        assert main([*words, "--save_checkpoint_path", str(folder), str(images)]) == 130
    return torch.load(folder / "checkpoint.pth.tar", weights_only=True)


@pytest.fixture(scope="module")
def halfway(labels, photographs, tmp_path_factory) -> dict:
    """The checkpoint of two epochs."""
    return interrupted(labels, photographs, tmp_path_factory.mktemp("halfway"), 4)


@pytest.fixture(scope="module")
def midway(labels, photographs, tmp_path_factory) -> dict:
    """The checkpoint of two epochs and one of the two steps of the third."""
    return interrupted(labels, photographs, tmp_path_factory.mktemp("midway"), 5)


def resume(found: dict, labels: str, images: Path, folder: Path, *more: str) -> int:
    folder.mkdir()
    torch.save(found, folder / "checkpoint.pth.tar")
    words = [*common(labels), "-a", PLAIN, *COSINE, "--resume", "auto", "--save_checkpoint_path", str(folder)]
    return main([*words, *more, str(images)])


def test_rates_go_on_whatever_the_steps_before_were(halfway, labels, photographs, tmp_path):
    """With another batch size, and from a checkpoint of FKD, which counts no steps; rows have each walk's last rate."""
    of_fkd = {name: halfway[name] for name in ("epoch", "arch", "state_dict", "best_acc1", "optimizer")}
    cases = {"larger": (halfway, 36, 1), "smaller": (halfway, 9, 4), "fkd": (of_fkd, 16, 2)}
    for name, (found, batch, steps) in cases.items():
        assert resume(found, labels, photographs, tmp_path / name, "-b", str(batch)) == 0
        places = [(epoch * steps - 1) / (4 * steps) for epoch in (3, 4)]
        assert [float(row["lr"]) for row in rows_of(tmp_path / name)] == pytest.approx(
            [0.05 / 2 * (1 + math.cos(math.pi * place)) for place in places], rel=1e-4
        )


def test_a_training_that_is_done_is_left_as_it_is(labels, photographs, tmp_path, capsys):
    words = [*common(labels), "-a", PLAIN, *COSINE, "--save_checkpoint_path", str(tmp_path / "done")]
    assert main([*words, str(photographs)]) == 0
    files = {path: path.read_bytes() for path in (tmp_path / "done").iterdir()}
    capsys.readouterr()
    again = ["--config", str(tmp_path / "done/args.yaml"), "--resume"]
    for epochs in ("4", "3"):
        assert main([*again, "auto", "--epochs", epochs]) == 0
        done, student = capsys.readouterr().out.splitlines()
        said = f"nothing is left to train: 4 of {epochs} epochs were trained before, in 8 steps; a larger --epochs"
        assert done.startswith(said) and f"{tmp_path / 'done'}/" in student
        assert {path: path.read_bytes() for path in (tmp_path / "done").iterdir()} == files
    other = [str(tmp_path / "done/checkpoint.pth.tar"), "--save_checkpoint_path", str(tmp_path / "other")]
    assert main([*again, *other]) == 0 and not (tmp_path / "other").exists()
    assert capsys.readouterr().out.count("\n") == 1
    assert main([*again, "auto", "--epochs", "5"]) == 0 and "trained 10 steps" in capsys.readouterr().out


def test_other_label_sets_are_named(halfway, labels, photographs, tmp_path, capsys):
    """A flag only says where they are: the very labels in another place are the same, others in that place are not."""
    shutil.copytree(labels, tmp_path / "moved")
    others = make(photographs, tmp_path / "others", seed=7)
    old = {**halfway, "settings": {k: v for k, v in halfway["settings"].items() if k != "label_sets"}}
    said = []
    for name, found, sets in (("same", halfway, "moved"), ("old", old, others), ("changed", halfway, others)):
        assert resume(found, str(tmp_path / sets), photographs, tmp_path / name) == 0
        said.append(re.search(r"resumed at epoch 2, step 4(.*)\n", capsys.readouterr().out)[1])
    digests = [slg_wds.open_labels(one).digest[:16] for one in (labels, others)]
    assert said == ["", "", "; changed: label_sets {} -> {}".format(*digests)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("-b", "24"), "batch_size 16 -> 24"),
        (("--num_crops", "2", "--label-temp", "2"), "num_crops 1 -> 2, label_temp None -> 2.0"),
    ],
)
def test_a_walk_goes_on_only_as_it_began(midway, labels, photographs, tmp_path, capsys, more, said):
    """The loader tells it in words of its own, which are no flags."""
    assert resume(midway, labels, photographs, tmp_path / "folder", *more) == 2
    out, error = capsys.readouterr()
    assert (
        out == ""
        and f"is in the middle of a walk, which can only go on as it began; changed: {said};" in error
    )
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["checkpoint.pth.tar"]
    assert resume(midway, labels, photographs, tmp_path / "again") == 0
    assert "resumed at epoch 2, step 5" in capsys.readouterr().out


def test_a_walk_is_kept_though_its_validation_fails(labels, photographs, tmp_path, capsys):
    """A held-out image is another one than was labelled. Once it is mended, no step comes again, nor is one missing."""
    shutil.copytree(photographs, tmp_path / "images")
    image = next((tmp_path / "images").rglob("*.jpg"))
    words = [*common(labels), "-a", PLAIN, *COSINE, "--checkpoint-every", "9", "--ema", "0.5"]
    words += ["--val-softlabels", labels, "--val-images", str(tmp_path / "images"), "--resume", "auto"]
    whole, failed = (
        [*words, "--save_checkpoint_path", str(tmp_path / name), str(photographs)] for name in "ab"
    )
    assert main(whole) == 0
    good = image.read_bytes()
    image.write_bytes(b"another image")
    assert main(failed) == 1 and image.stem in capsys.readouterr().err
    image.write_bytes(good)
    assert main(failed) == 0 and "resumed at epoch 0, step 2" in capsys.readouterr().out
    same(tmp_path / "a", tmp_path / "b")
    timed = ("crops_per_second", "loader_wait", "seconds")
    one, two = (
        [{k: v for k, v in row.items() if k not in timed} for row in rows_of(tmp_path / name)]
        for name in "ab"
    )
    assert one == two and len(one) == 4


@pytest.mark.parametrize("writes", range(1, 6))
def test_the_best_student_survives_an_interrupt_after_any_write(
    labels, photographs, tmp_path, monkeypatch, writes
):
    """At a rate of 0 the first walk's student is the best one: the second is no better."""

    @contextlib.contextmanager
    def interrupted(path):
        with kept(path) as file:
            yield file
        left.pop()
        if not left:
            raise KeyboardInterrupt

    kept, left = checkpoints.whole_file, [None] * writes
    words = [
        *common(labels),
        "-a",
        PLAIN,
        "--num_crops",
        "1",
        "--epochs",
        "2",
        "--lr",
        "0",
        "--val-softlabels",
        labels,
    ]
    words += ["--save_checkpoint_path", str(tmp_path), "--resume", "auto", str(photographs)]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "whole_file", interrupted)
        assert main(words) == 130
    assert main(words) == 0
    best = torch.load(tmp_path / "model_best.pth.tar", weights_only=True)
    assert best["epoch"] == 1 and best["best_acc1"] > 0 and len(rows_of(tmp_path)) == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"optimizer": None}, "the checkpoint cannot be read: its optimizer is no mapping"),
        ({"settings": [1]}, "the checkpoint cannot be read: its settings is no mapping"),
        ({"progress": {"of_a_later_version": 1}}, "of_a_later_version"),
        ({"state_dict": {1: torch.zeros(1)}}, "Missing key(s) in state_dict"),
        ({"epoch": None, "progress": ...}, "is not one of"),
        ({"optimizer": ...}, "with --opt sgd: it has no 'optimizer'"),
    ],
)
def test_a_file_that_is_half_a_checkpoint_is_one_line(
    halfway, labels, photographs, tmp_path, capsys, changed, said
):
    """Weights alone, for example, or what another program or a later version wrote."""
    found = {name: one for name, one in {**halfway, **changed}.items() if one is not ...}
    assert resume(found, labels, photographs, tmp_path / "folder") == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_weights_that_are_not_finite_take_no_checkpoints_place(
    halfway, labels, photographs, tmp_path, capsys
):
    """The rate is too high, and no loss is printed before the walk is done."""
    steep = ("--lr", "1e38", "-p", "100")
    assert resume(halfway, labels, photographs, tmp_path / "steep", *steep) == 1
    assert (
        "weights that are not finite after step 6; they are not kept; lower --lr" in capsys.readouterr().err
    )
    left = torch.load(tmp_path / "steep" / "checkpoint.pth.tar", weights_only=True)
    assert left["epoch"] == 2 and not (tmp_path / "steep" / "model_best.pth.tar").exists()
