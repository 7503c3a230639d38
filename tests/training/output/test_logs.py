"""summary.csv has a row a walk, of what was printed; the other logs get the same figures."""

from __future__ import annotations

import re
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from slg_wds.training.command import main
from slg_wds.training.flags import parse
from slg_wds.training.meter import Meter, figures_of
from slg_wds.training.output.logs import CsvLog
from slg_wds.training.state import Progress
from support.sets.replay_sets import write_class_map
from support.training import PLAIN, common, rows_of, train


@pytest.fixture
def data(photographs, tmp_path) -> Path:
    """Validation images beside those to train on."""
    (tmp_path / "data").mkdir()
    for name in ("train", "val"):
        (tmp_path / "data" / name).symlink_to(photographs / "train")
    write_class_map(photographs, tmp_path / "classes")
    return tmp_path / "data"


def test_a_row_a_walk_of_what_was_printed(labels, data, tmp_path, capsys):
    more = [
        "-a",
        PLAIN,
        "--epochs",
        "10",
        "--ema",
        "0.5",
        "--class-map",
        str(tmp_path / "classes"),
        "--sched",
        "cosine",
    ]
    train(
        tmp_path / "out", labels, data, *more, "--val-softlabels", labels, "--val-images", str(data / "train")
    )
    said = capsys.readouterr().out
    rows = rows_of(tmp_path / "out")
    # Two walks with four crops, of 9 steps, and two with one crop, of 2.
    assert [(row["epoch"], row["step"]) for row in rows] == [
        ("4", "9"),
        ("8", "18"),
        ("9", "20"),
        ("10", "22"),
    ]
    lines = re.findall(
        r"epoch (\d+) \[\d+/\d+\] loss ([\d.]+) lr ([\d.]+) [\d,]+ crops/s, ([\d.]+)% of the time", said
    )
    assert len(lines) == 22
    for row, walk in zip(rows, (lines[:9], lines[9:18], lines[18:20], lines[20:]), strict=True):
        losses = [float(loss) for _, loss, _, _ in walk]
        assert float(row["train_loss"]) == pytest.approx(sum(losses) / len(losses), abs=1e-4)
        assert float(row["lr"]) == pytest.approx(float(walk[-1][2]), abs=1e-5)
        assert float(row["crops_per_second"]) > 0 and 0 < float(row["loader_wait"]) < 1
    printed = re.findall(r"training: (average of)?.*?(top-1|KL).*? ([\d.]+)%?, \S+ ([\d.]+)%", said)
    assert len(printed) == 4 * 2 * 2
    for kind, columns in {"top-1": ("top1", "top5"), "KL": ("kl", "agreement")}.items():
        for whose, prefix in {"": "eval_", "average of": "eval_ema_"}.items():
            figures = [
                tuple(map(float, pair))
                for average, what, *pair in printed
                if (average, what) == (whose, kind)
            ]
            logged = [tuple(float(row[prefix + name]) for name in columns) for row in rows]
            assert [one for row in logged for one in row] == pytest.approx(
                [one for row in figures for one in row], abs=5e-3
            )
    assert [row["seconds"] for row in rows] == sorted((row["seconds"] for row in rows), key=float)


def test_rows_of_steps_that_a_resumed_run_takes_again_are_dropped(tmp_path):
    path = tmp_path / "summary.csv"
    log = CsvLog(path, 0)
    for step in (9, 18, 27):
        log({"epoch": step // 9, "step": step, "train_loss": step / 7})
    resumed = CsvLog(path, 20)
    resumed({"epoch": 3, "step": 27, "train_loss": 0.5, "eval_top1": 25.0})
    assert path.read_text() == "epoch,step,train_loss,eval_top1\n1,9,1.28571,\n2,18,2.57143,\n3,27,0.5,25\n"
    CsvLog(path, 0)({"epoch": 1, "step": 9, "train_loss": 1.0})
    assert path.read_text() == "epoch,step,train_loss\n1,9,1\n"


def test_a_summary_of_another_program_is_no_part_of_ours(tmp_path):
    path = tmp_path / "summary.csv"
    path.write_text("epoch,train_loss,eval_top1\n0,5.1,12.5\n1,4.9,13\n")
    CsvLog(path, 5)({"epoch": 1, "step": 9, "train_loss": 1.0})
    assert path.read_text() == "epoch,step,train_loss\n1,9,1\n"


def test_the_meter_tells_waiting_from_work():
    args = parse([])
    args.rank, args.ranks, args.device = 0, 1, torch.device("cpu")
    training = SimpleNamespace(progress=Progress(epoch=4, step=13, seconds=7.0), optimizer=None)
    before = {"loss": 2.0, "steps": 2, "crops": 32, "waited": 1.0, "seconds": 4.0}
    training.progress.walk = dict(before)
    training.optimizer = SimpleNamespace(param_groups=[{"lr": 0.25}])

    def slow():
        for _ in range(3):
            time.sleep(0.03)
            yield "a batch"

    begun = time.monotonic()
    meter = Meter(args, training)
    for _ in meter.batches(slow()):
        time.sleep(0.05)
        meter.add(torch.tensor(3.0), 16)
    meter.count()
    spent = time.monotonic() - begun
    walk = training.progress.walk
    assert (walk["loss"], walk["steps"], walk["crops"]) == (2.0 + 9.0, 5, 80)
    assert 0.09 <= walk["waited"] - 1.0 <= spent - 0.15
    assert 0.24 <= walk["seconds"] - 4.0 <= spent and training.progress.seconds == pytest.approx(
        walk["seconds"] + 3.0
    )
    figures = figures_of(training)
    assert figures["train_loss"] == 11 / 5 and figures["crops_per_second"] == 80 / walk["seconds"]
    assert figures["loader_wait"] == walk["waited"] / walk["seconds"] and figures["lr"] == 0.25


def test_a_line_of_progress_says_how_long_the_rest_takes(capsys):
    args = parse([])
    args.rank, args.ranks, args.device = 0, 1, torch.device("cpu")
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.25}])
    training = SimpleNamespace(progress=Progress(epoch=0, step=100), optimizer=optimizer, steps=0)
    meter = Meter(args, training)
    meter.begin -= 50
    for _ in range(10):
        meter.add(torch.tensor(3.0), 16)
    training.steps = 100 + 7 * 60 * 60 // 5  # 5 s each
    meter.show(0, 40)
    assert capsys.readouterr().out.endswith(", about 7.0 h left\n")
    meter.begin -= 20
    meter.add(torch.tensor(3.0), 16)
    training.steps = 100 + 3  # 20 s each of late
    meter.show(0, 40)
    assert capsys.readouterr().out.endswith(", about 60 s left\n")


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_log_that_is_not_installed_is_named_before_the_first_step(
    labels, photographs, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    words = [
        *common(labels),
        "-a",
        PLAIN,
        "--log",
        name,
        "--save_checkpoint_path",
        str(tmp_path),
        str(photographs),
    ]
    assert main(words, "train") == 1
    out, errors = capsys.readouterr()
    assert errors == f"train: --log {name} needs {name}; pip install {name}\n" and " loss " not in out


def test_tensorboard_has_the_figures(labels, photographs, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        train(tmp_path, labels, photographs, "-a", PLAIN, "--epochs", "5", "--log", "tensorboard")
        events = EventAccumulator(str(tmp_path)).Reload()
    rows = rows_of(tmp_path)
    assert [float(row["train_loss"]) for row in rows] == pytest.approx(
        [event.value for event in events.Scalars("train_loss")], rel=1e-4
    )
    assert [int(row["step"]) for row in rows] == [event.step for event in events.Scalars("lr")]


def test_a_checkpoint_of_an_earlier_version_goes_on(labels, photographs, tmp_path, capsys):
    """It knows nothing of figures, runs, newer flags and fused optimizers."""
    more = ["-a", PLAIN, "--epochs", "4", "--checkpoint-every", "6", "--resume", "auto"]
    train(tmp_path, labels, photographs, *more, "--num_crops", "1", "-b", "12")
    path = tmp_path / "checkpoint.pth.tar"
    found = torch.load(path, weights_only=True)
    for name in ("walk", "run"):
        del found["progress"][name]
    found["settings"] = {name: found["settings"][name] for name in ("seed", "epochs", "lr", "opt")}
    for group in found["optimizer"]["param_groups"]:
        del group["fused"]
    torch.save(found, path)
    train(tmp_path, labels, photographs, *more, "--num_crops", "1", "-b", "12", "--epochs", "5")
    assert "resumed at epoch 4, step 12; changed: epochs 4 -> 5" in capsys.readouterr().out
    assert [row["step"] for row in rows_of(tmp_path)] == ["3", "6", "9", "12", "15"]
