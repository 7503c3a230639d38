"""Every option means in Python what it means on the command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import slg_wds
from slg_wds import config as configs
from slg_wds.cli import main
from slg_wds.errors import UsageError
from slg_wds.generation.dry_run import DryRun
from slg_wds.teachers import Accuracy
from support.models.names import TINY
from support.sets.replay_sets import write_class_map


def options(photographs: Path, tmp_path: Path, **more):
    given = {"num_crops": 4, "num_seg": 16, "samples_per_shard": 10, "threads_per_forward": 1, "workers": 1}
    about = {
        "data": str(photographs),
        "save_path": str(tmp_path / "set"),
        "arch": TINY,
        "teacher_source": "private",
    }
    return slg_wds.GenerateConfig(**{**about, **given, **more})


@pytest.mark.parametrize("devices", [None, "cpu:2"])
def test_a_dry_run_makes_nothing_and_says_what_would_be_done(photographs, tmp_path, devices):
    found = slg_wds.generate(options(photographs, tmp_path, dry_run=True, devices=devices))
    assert isinstance(found, DryRun)
    assert (found.images, found.shards, found.crops, found.forwards) == (36, 4, 144, 9)
    assert found.bytes >= 36 * 1024 and found.seconds > 0 and "would label 36 images" in found.summary[0]
    assert not (tmp_path / "set").exists()


def test_an_evaluation_makes_nothing_and_gives_the_accuracy(photographs, tmp_path, capsys):
    more = {"split": "train", "class_map": write_class_map(photographs, tmp_path / "classes")}
    found = slg_wds.generate(options(photographs, tmp_path, evaluate=True, **more))
    about = {"data": str(photographs), "arch": TINY, "teacher_source": "private"}
    assert isinstance(found, Accuracy) and found == slg_wds.evaluate(slg_wds.EvaluateConfig(**about, **more))
    assert not (tmp_path / "set").exists()
    arguments = [
        "-a",
        TINY,
        "--teacher_source",
        "private",
        "--split",
        "train",
        "--class-map",
        more["class_map"],
    ]
    assert main(["generate", str(photographs), *arguments, "-e"]) == 0
    by_flag = capsys.readouterr().out
    assert main(["evaluate", str(photographs), *arguments]) == 0
    assert capsys.readouterr().out == by_flag and f"top-1 {found.top1:.2%}" in by_flag


NEEDED = {
    configs.GenerateConfig: {"data": "d", "arch": "a"},
    configs.EvaluateConfig: {"data": "d", "arch": "a"},
    configs.EnsembleConfig: {"sets": ("s",), "save_path": "p"},
    configs.ImportConfig: {"fkd_dir": "f", "images": "i", "save_path": "p"},
    configs.ExportConfig: {"labels": "l", "fkd_dir": "f"},
    configs.InspectConfig: {"labels": "l"},
    configs.VerifyConfig: {"labels": "l"},
    configs.ReportConfig: {"labels": ("l",)},
}


@pytest.mark.parametrize("kind", NEEDED)
def test_words_that_the_command_line_would_refuse_are_refused(kind):
    assert kind(**NEEDED[kind])
    words = {"on_error": "ignore", "precision": "fp8", "values": "float8", "engine": "rays", "layout": "fdk"}
    names = [field.name for field in dataclasses.fields(kind) if field.name in words]
    for name in names:
        with pytest.raises(UsageError) as caught:
            kind(**NEEDED[kind], **{name: words[name]})
        assert f"--{name.replace('_', '-')} {words[name]!r} is not one of " in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (configs.EnsembleConfig, "sets"),
        (configs.ReportConfig, "labels"),
        (configs.GenerateConfig, "weights"),
    ],
)
def test_one_text_is_not_a_sequence_of_letters(kind, name):
    with pytest.raises(UsageError, match=rf"--{name.replace('_', '-')} is a sequence, not one text"):
        kind(**{**NEEDED[kind], name: "text"})


@pytest.mark.parametrize("kind", NEEDED)
def test_options_of_stores_are_spelled_as_everywhere_in_python(kind):
    assert kind(**NEEDED[kind], store_options={"region": "x"}).store_options == {"region": "x"}
    for other in ("region=x", ("region=x",)):
        with pytest.raises(UsageError, match="store_options is no mapping"):
            kind(**NEEDED[kind], store_options=other)


def test_a_near_word_is_suggested():
    with pytest.raises(UsageError, match="did you mean skip"):
        configs.GenerateConfig(data="d", arch="a", on_error="skipp")


def test_paths_of_pathlib_are_taken_wherever_text_is(photographs, tmp_path):
    slg_wds.generate(options(photographs, tmp_path, data=photographs, save_path=tmp_path / "set"))
    slg_wds.ensemble(
        slg_wds.EnsembleConfig(sets=(tmp_path / "set",), save_path=tmp_path / "again", processes=1)
    )
    assert list(slg_wds.open_labels(tmp_path / "again").plan.keys)
    for labels in (tmp_path / "set", [tmp_path / "set", tmp_path / "again"]):
        assert len(slg_wds.SoftLabelLoader(labels, photographs, global_batch_size=16)) == 9
