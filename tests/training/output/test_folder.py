"""A training never overwrites another one; a run that goes on with it does."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slg_wds.errors import SlgWdsError, UsageError
from slg_wds.training import loop
from slg_wds.training.command import main
from slg_wds.training.flags import parse
from slg_wds.training.output.folder import FILES, make_folder, refuse_another_training
from support.training import PLAIN, RESTLESS, common, rows_of

SHORT = ("-a", PLAIN, "--num_crops", "1", "-b", "18", "--epochs", "1")


@pytest.fixture(scope="module")
def words(labels, photographs):
    """The command of a training of two steps."""

    def of(folder: Path, *more: str) -> list[str]:
        return [*common(labels), *SHORT, *more, "--save_checkpoint_path", str(folder), str(photographs)]

    return of


@pytest.fixture
def student(words, tmp_path) -> Path:
    """The folder of a training that is done."""
    assert main(words(tmp_path / "student")) == 0
    return tmp_path / "student"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_another_training_is_refused_and_nothing_is_lost(words, student, tmp_path, capsys):
    before = content(student)
    other = tmp_path / "copied.pth.tar"
    other.write_bytes(before["checkpoint.pth.tar"])
    capsys.readouterr()
    for more in (["-a", RESTLESS], [], ["--resume", str(other)]):
        assert main(words(student, *more), "train") == 2
        out, errors = capsys.readouterr()
        assert out == "" and errors.count("\n") == 1 and str(student) in errors
        assert "--resume auto goes on with it" in errors and "another --save_checkpoint_path" in errors
    assert content(student) == before and {"checkpoint.pth.tar", "args.yaml", "summary.csv"} <= before.keys()


def test_runs_that_go_on_with_the_folder_may(words, student, monkeypatch, capsys):
    monkeypatch.chdir(student)
    for epochs, resume in (
        ("2", "auto"),
        ("3", "checkpoint.pth.tar"),
        ("4", str(student / "checkpoint.pth.tar")),
    ):
        assert main(words(student, "--resume", resume, "--epochs", epochs)) == 0
        assert f"resumed at epoch {int(epochs) - 1}, " in capsys.readouterr().out
    assert [row["epoch"] for row in rows_of(student)] == ["1", "2", "3", "4"]


def test_validation_writes_nothing_and_is_not_refused(words, student, labels, capsys):
    before = content(student)
    more = ["-e", "--resume", str(student / "checkpoint.pth.tar"), "--val-softlabels", labels]
    assert main(words(student, *more)) == 0
    assert "agreement" in capsys.readouterr().out and content(student) == before


def begins(folder: Path, resume: str) -> None:
    args = parse(["--save_checkpoint_path", str(folder), "--resume", resume])
    args.rank, args.ranks, args.device = 0, 1, torch.device("cpu")
    refuse_another_training(args)


@pytest.mark.parametrize("name", FILES)
def test_each_file_alone_is_a_training(tmp_path, name):
    begins(tmp_path, "")
    (tmp_path / "notes.txt").touch()
    begins(tmp_path, "")
    (tmp_path / name).touch()
    hint = {
        "checkpoint.pth.tar": "--resume auto goes on with it",
        "model_best.pth.tar": f"--resume {tmp_path / 'model_best.pth.tar'} goes on from its best student",
    }
    with pytest.raises(UsageError, match=re.escape(hint.get(name, "--resume auto starts it anew"))):
        begins(tmp_path, "")
    begins(tmp_path, str(tmp_path / name))
    if name != "model_best.pth.tar":  # `auto` does not read it, and would overwrite it
        begins(tmp_path, "auto")
        return
    with pytest.raises(UsageError):
        begins(tmp_path, "auto")


def test_a_training_that_ends_before_its_first_checkpoint_leaves_the_folder_free(
    words, tmp_path, monkeypatch, capsys
):
    def stop(*given):
        assert (tmp_path / "args.yaml").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", stop)
        assert main(words(tmp_path)) == 130
    assert content(tmp_path) == {}
    assert main(words(tmp_path)) == 0


@contextlib.contextmanager
def full_disk():
    """No file may have more bytes than args.yaml and summary.csv need."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def test_a_first_checkpoint_that_cannot_be_written_leaves_the_folder_free(words, tmp_path, capsys):
    """Without a validation the row of the walk is in summary.csv by then."""
    with full_disk():
        assert main(words(tmp_path)) == 1
    assert "cannot be written: File too large" in capsys.readouterr().err and content(tmp_path) == {}
    assert main(words(tmp_path)) == 0


def test_flags_and_rows_are_those_of_the_checkpoint_beside_them(words, student):
    """A run that goes on with other flags, and saves nothing."""
    before = content(student)
    with full_disk():
        assert main(words(student, "--resume", "auto", "--epochs", "3", "--lr", "0.5")) == 1
    assert content(student) == before
    assert main(words(student, "--resume", "auto", "--epochs", "3", "--lr", "0.5")) == 0
    assert b"lr: 0.5" in content(student)["args.yaml"] and len(rows_of(student)) == 3


@pytest.mark.slow
def test_only_the_first_process_needs_to_write_to_the_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    args = parse(["--save_checkpoint_path", str(tmp_path / "file" / "out")])
    args.rank, args.device = 1, torch.device("cpu")
    make_folder(args)
    args.rank = 0
    with pytest.raises(
        SlgWdsError, match=r"checkpoints cannot be written here: .*file is a file, not a folder"
    ):
        make_folder(args)


def test_all_processes_end_together(words, student):
    before = content(student)
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "slg_wds", "train"]
    done = subprocess.run(
        [sys.executable, *ranks, *words(student)], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0 and content(student) == before
    assert done.stderr.count("which this one would overwrite") == 2 and "lost touch" not in done.stderr
