"""Several processes train one student, or none: what differs between them is refused, and their figures are one's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slg_wds.training.command import main
from support.training import RESTLESS, common

SHORT = ("-a", RESTLESS, "--num_crops", "1", "--epochs", "2", "--ema", "0.5")


def together(folders: list[Path], *words: list[str]) -> list[tuple[int, str, str]]:
    """Run the commands as tasks of srun, each in its own folder, as on machines without a shared one.

    Returns the code and the output of each.
    """
    job = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": str(os.getpid())}
    job |= {"SLURM_STEP_TASKS_PER_NODE": "2", "OMP_NUM_THREADS": "1"}
    tasks = []
    for rank, (folder, more) in enumerate(zip(folders, words, strict=True)):
        folder.mkdir(exist_ok=True)
        place = {**os.environ, **job, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        command = [
            sys.executable,
            "-m",
            "slg_wds",
            "train",
            *SHORT,
            "--save_checkpoint_path",
            "student",
            *more,
        ]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        tasks.append(subprocess.Popen(command, env=place, cwd=folder, **pipes))
    said = [task.communicate(timeout=240) for task in tasks]
    return [(task.returncode, *one) for task, one in zip(tasks, said, strict=True)]


@pytest.mark.slow
def test_processes_that_differ_are_refused_and_those_that_do_not_have_one_students_figures(
    labels, photographs, tmp_path, capsys
):
    words = [*common(labels), "--val-softlabels", labels, str(photographs)]
    one, two = tmp_path / "one", tmp_path / "two"
    (code, said, _), (other, _, errors) = together([one, one], words, words)
    assert (code, other) == (0, 0), errors
    figures = re.findall(r"epoch 2.*: (.*KL .*)", said)
    checkpoint = ["--evaluate", "--resume", str(one / "student" / "checkpoint.pth.tar")]
    assert main([*SHORT, *words, *checkpoint]) == 0
    assert figures == re.findall(r"epoch 2.*: (.*KL .*)", capsys.readouterr().out) and len(figures) == 2
    resumed = [*words, "--epochs", "3", "--resume", "auto"]
    for folders, other_words, what in (
        ([one, two], resumed, r"checkpoint none, not of epoch 2, step 4, run \w+"),
        ([two, one], resumed, r"checkpoint of epoch 2, step 4, run \w+, not none"),
        ([two, two], [*resumed, "--lr", "0.5"], r"lr 0\.5, not 0\.05"),
    ):
        for code, out, errors in together(folders, resumed, other_words):
            assert code == 2 and out == "" and errors.count("\n") == 1
            assert re.search(rf"process 1 of 2 was given something else than process 0: {what};", errors)
