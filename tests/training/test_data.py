"""What a training says of its batches and images."""

from __future__ import annotations

import pytest

from slg_wds import SoftLabelLoader
from slg_wds.training import data, loop
from slg_wds.training.command import main
from support.sets.replay_sets import make
from support.sets.trust_sets import copy_of
from support.training import PLAIN, common, same, train


def test_a_batch_that_is_rounded_is_announced_once(labels, photographs, tmp_path, capsys):
    flags = ("-a", PLAIN, "--num_crops", "7", "--epochs", "1")
    train(tmp_path / "rounded", labels, photographs, *flags, "-b", "20")
    said = capsys.readouterr().out
    assert said.count("-b 20 is rounded up to 21 crops: 7 of each image") == 1
    train(tmp_path / "whole", labels, photographs, *flags, "-b", "21")
    assert "rounded up" not in capsys.readouterr().out


def test_without_a_label_set_the_flag_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["-a", PLAIN, "images"], "train") == 2
    errors = capsys.readouterr().err
    assert errors == (
        "train: there is no label set in ./soft_label, the default of --softlabel_path; give --softlabel_path LABELS\n"
    )


def test_fkds_default_folder_is_taken_where_it_is_a_label_set(labels, photographs, tmp_path, monkeypatch):
    copy_of(labels, tmp_path / "soft_label")
    monkeypatch.chdir(tmp_path)
    assert main(["-a", PLAIN, "-b", "36", "--epochs", "1", str(photographs)]) == 0


def test_an_unfinished_set_ends_as_in_other_commands(labels, photographs, tmp_path, capsys):
    copy_of(labels, tmp_path / "set")
    for name in ("_info.json", "train-000001.tar"):
        (tmp_path / "set" / name).unlink()
    folder, unfinished = ["--save_checkpoint_path", str(tmp_path / "out")], str(tmp_path / "set")
    for words in (common(unfinished), [*common(labels), "--val-softlabels", unfinished]):
        assert main([*words, "-a", PLAIN, *folder, str(photographs)]) == 3
        errors = capsys.readouterr().err
        assert (
            errors.rstrip().endswith("; finish it with the command that began it") and "Python" not in errors
        )


def test_images_without_labels_are_told_in_one_line(photographs, tmp_path, capsys):
    images = copy_of(photographs, tmp_path / "images")
    next(images.rglob("train/*/*.jpg")).write_bytes(b"")
    labels = make(images, tmp_path / "set", on_error="skip", num_crops=2)
    capsys.readouterr()
    folder = ["--save_checkpoint_path", str(tmp_path / "out"), "--epochs", "1", "--num_crops", "1"]
    assert main([*common(labels), "-a", PLAIN, *folder, str(images)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    told = (
        f"slg-wds train: warning: left out of the labels {labels}: 1 of 36 images; slg-wds inspect says why"
    )
    assert line == told


@pytest.mark.parametrize("steps", [0, 1])
def test_an_interruption_names_a_checkpoint_only_where_there_is_one(
    labels, photographs, tmp_path, monkeypatch, capsys, steps
):
    taken, step = [], loop.train_step

    def interrupted(*given):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(given)
        return step(*given)

    monkeypatch.setattr(loop, "train_step", interrupted)
    more = ["-a", PLAIN, "--checkpoint-every", "1", "--save_checkpoint_path", str(tmp_path), str(photographs)]
    assert main([*common(labels), *more], "train") == 130
    errors = capsys.readouterr().err
    way_on = "; --resume auto goes on from the last checkpoint" if steps else ""
    assert errors == f"train: interrupted{way_on}\n"


def test_processes_make_the_batches_of_the_same_student(labels, photographs, tmp_path, monkeypatch, capsys):
    found = []

    def waited_for(*given, **options):
        loader = SoftLabelLoader(*given, **options)
        loader.wait_for_processes()
        found.append(len(loader.processes))
        return loader

    monkeypatch.setattr(data, "SoftLabelLoader", waited_for)
    flags = ("-a", PLAIN, "--num_crops", "4", "--epochs", "4")
    train(tmp_path / "one", labels, photographs, *flags)
    train(tmp_path / "other", labels, photographs, *flags, "--loader-processes", "1")
    same(tmp_path / "one", tmp_path / "other")
    assert found[0] == 0 and found[-1] == 1
    capsys.readouterr()
    folder = ["--save_checkpoint_path", str(tmp_path / "none")]
    assert (
        main([*common(labels), *flags, *folder, "--loader-processes", "-1", str(photographs)], "train") == 2
    )
    assert "processes is -1" in capsys.readouterr().err
