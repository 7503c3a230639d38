"""The worker loop under launchers: torchrun and Slurm's variables, on disk and on S3, one of the ranks killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from slg_wds.cli import main
from slg_wds.store import open_store
from support.programs import made_here, tool
from support.servers.s3 import running_s3

KILL = tool("kill_test")
MORE = ["--samples-per-shard", "2", "--num_crops", "60"]


@pytest.fixture(scope="module")
def alone(photographs, tmp_path_factory):
    target = tmp_path_factory.mktemp("launchers") / "alone"
    made_here(KILL.command(photographs, target, *MORE))
    return KILL.contents(target)


def torchrun(photographs, target, *more):
    command = KILL.command(photographs, target, *MORE, *more)
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"),
        *command[1:],
    ]


def run(command, **environment):
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_two_ranks_of_torchrun_make_the_bytes_of_one_process(photographs, alone, tmp_path):
    done = run(torchrun(photographs, tmp_path / "set"))
    assert done.returncode == 0, done.stderr
    assert KILL.contents(tmp_path / "set") == alone


@pytest.mark.slow
def test_torchrun_on_s3_makes_the_bytes_of_one_process_on_disk(photographs, alone, tmp_path):
    with running_s3() as server:
        url = f"{server.url}/torchrun"
        environment = {**server.environment(), "NO_PROXY": "127.0.0.1"}
        done = run(torchrun(photographs, url), **environment)
        assert done.returncode == 0, done.stderr
        store = open_store(url, server.options())
        for entry in store.list():
            path = tmp_path / "copy" / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(entry.name))
    assert KILL.contents(tmp_path / "copy") == alone


@pytest.mark.slow
def test_tasks_of_srun_and_of_an_array_divide_the_set(photographs, alone, tmp_path):
    """Both load before either begins; otherwise the first would also take shards of the other's block."""
    names = [("SLURM_PROCID", "SLURM_NTASKS"), ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")]
    for number, (rank, size) in enumerate(names):
        step = {"SLURM_STEP_ID": "0"} if rank == "SLURM_PROCID" else {}
        target = tmp_path / f"set{number}"
        command = KILL.command(photographs, target, *MORE)
        (tmp_path / f"meeting{number}").mkdir()
        meeting = {"SLG_TEST_MEETING": f"{tmp_path / f'meeting{number}'}:2"}
        first = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **meeting, **step, rank: "1", size: "2"},
        )
        second = run(command, **meeting, **step, **{rank: "0", size: "2"})
        assert second.returncode == 0, second.stderr
        err = first.communicate()[1]
        assert first.returncode == 0, err
        made = [line.split(":")[0] for line in err.splitlines() if line.startswith("train-")]
        assert made[0] == "train-000009"  # of 18 shards the second block begins there
        assert KILL.contents(target) == alone


def test_a_killed_rank_leaves_a_set_that_the_other_finishes(photographs, alone, tmp_path):
    target = tmp_path / "set"
    command = KILL.command(photographs, target, *MORE)
    ranks = [
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]  # fmt: skip
    limit = time.monotonic() + 100
    while not list(target.glob("train-*.tar")) and time.monotonic() < limit:
        time.sleep(0.01)
    os.kill(ranks[1].pid, signal.SIGKILL)
    assert ranks[0].wait() == 0 and ranks[1].wait() == -signal.SIGKILL
    assert KILL.contents(target) == alone


@pytest.mark.parametrize(("given", "lacking"), [("WORLD_SIZE", "RANK"), ("RANK", "WORLD_SIZE")])
def test_half_of_a_launcher_is_refused(photographs, tmp_path, monkeypatch, capsys, given, lacking):
    monkeypatch.delenv(lacking, raising=False)
    monkeypatch.setenv(given, "2")
    assert main(KILL.command(photographs, tmp_path / "set", *MORE)[3:]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert lacking in line
    assert not list(tmp_path.glob("set/*.tar"))


def test_ranks_of_different_identity_do_not_mix(photographs, alone, tmp_path, monkeypatch, capsys):
    target = tmp_path / "set"
    made_here(KILL.command(photographs, target, *MORE))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(KILL.command(photographs, target, *MORE, "--seed", "1")[3:]) == 1
    assert "seed" in capsys.readouterr().err.splitlines()[-1]
    assert KILL.contents(target) == alone
