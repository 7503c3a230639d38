"""Bad images, teachers, options and folders: one line, and nothing half written."""

from __future__ import annotations

import json
from functools import partial

import pytest

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from support.models.names import NAN, TINY
from support.sets.replay_sets import tiny_run

config = partial(tiny_run, num_crops=30)


def test_damaged_images_stop_the_run_or_are_left_out_counted_and_recorded(photographs, tmp_path):
    import shutil

    data = tmp_path / "photographs"
    shutil.copytree(photographs, data)
    damaged = data / "train" / "n07920052" / "coffee_2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:4000])
    with pytest.raises(errors.ImageDecodeError, match=r"n07920052/coffee_2.*--on-error skip"):
        slg_wds.generate(config(data, tmp_path / "set"))
    result = slg_wds.generate(config(data, tmp_path / "set", on_error="skip"))
    assert result.complete and result.stats.images <= 35
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    keys = [record.key for record in labels]
    assert len(keys) == 35 and "n07920052/coffee_2" not in keys
    left_out = [e for n in range(labels.num_shards) for e in labels.shard(n).header.left_out]
    assert [entry["path"] for entry in left_out] == ["n07920052/coffee_2.jpg"] and left_out[0]["reason"]
    info = json.loads((tmp_path / "set" / "_info.json").read_text())["splits"]["train"]
    assert info["num_samples"] == 35 == sum(info["shard_lengths"])


def test_a_teacher_that_gives_nan_stops_the_run_with_nothing_half_written(photographs, tmp_path):
    with pytest.raises(errors.TeacherOutputError, match="NaN"):
        slg_wds.generate(config(photographs, tmp_path / "set", arch=NAN, samples_per_shard=36))
    assert not list((tmp_path / "set").rglob("*.tar"))


def test_forwards_that_no_memory_holds_are_one_line(photographs, tmp_path):
    with pytest.raises(errors.MemoryFullError, match=r"900,000,000 crops of \d+ pixels.*lower --num-seg$"):
        slg_wds.generate(config(photographs, tmp_path / "set", num_seg=900_000_000))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--num_crops", "0"], "--num-crops 0 is below 1"),
        (
            ["--label_type", "shared_tail_k21"],
            "--label-type shared_tail_k21 needs 21 classes, but there are 20",
        ),
        (["--num_seg", "-1"], "--num-seg -1 is below 1"),
        (["--label_type", "marginal_smoothing_k21"], "21 classes"),
        (["--label_type", "marginal_smooth_k5"], "marginal_smoothing_k5"),
        (["--min_scale_crops", "0.5", "--max_scale_crops", "0.4"], "crop scale"),
        (["--max_scale_crops", "1.5"], "crop scale"),
        (["--interpolation", "cubic"], "bicubic"),
        (["--teacher_source", "hub"], "hub"),
        (["--use_fp16", "--values", "log8"], "contradicts"),
        (["--embed-images", "small"], "max-side"),
        (["--world-size", "2"], "torchrun"),
        (["--dist-url", "env://"], "--save-path"),
        (["--split", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(photographs, tmp_path, capsys, options, named):
    base = ["generate", str(photographs), "-a", TINY, "--teacher_source", "private"]
    code = main([*base, "--save-path", str(tmp_path / "set"), *options])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code != 0 and len(lines) == 1 and named in lines[0], lines
    assert not (tmp_path / "set").exists()


def test_a_folder_with_something_else_is_refused(photographs, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    code = main(
        [
            "generate",
            str(photographs),
            "-a",
            TINY,
            "--teacher_source",
            "private",
            "--save-path",
            str(tmp_path / "set"),
        ]
    )
    assert code == 1 and "thesis.txt" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["thesis.txt"]
