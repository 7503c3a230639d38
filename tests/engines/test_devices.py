"""One run on several devices: the same bytes, restarts, a shard that kills its worker, Ctrl-C, bad options."""

import os
import shutil
import signal

import pytest
from PIL import Image

from support.models.names import TINY
from support.programs import made_here, tool

KILL, JOBS = tool("kill_test"), tool("fault_jobs")
MORE = ["--samples-per-shard", "2", "--num_crops", "60"]
TWO = [*MORE, "--devices", "cpu:2"]


@pytest.fixture(scope="module")
def alone(photographs, tmp_path_factory):
    target = tmp_path_factory.mktemp("devices") / "alone"
    made_here(KILL.command(photographs, target, *MORE, "--devices", "cpu"))
    return KILL.contents(target)


def start(photographs, target, *more, **environment):
    return JOBS.Run(KILL.command(photographs, target, *TWO, *more), **environment)


def finished(photographs, target):
    """Run once more, undisturbed; return the content of the set."""
    made_here(KILL.command(photographs, target, *MORE))
    return KILL.contents(target)


def all_gone(pids):
    JOBS.wait_until(lambda: not any(JOBS.alive(pid) for pid in pids))


def test_two_processes_make_the_bytes_of_one_under_one_display_and_summary(photographs, alone, tmp_path):
    run = start(photographs, tmp_path / "set")
    assert run.wait_for_shards(1) and len(run.workers()) == 2
    assert run.end() == 0, run.text
    assert KILL.contents(tmp_path / "set") == alone
    assert sum(line.startswith("teacher ") for line in run.said) == 1
    made = [line.split(":")[0] for line in run.said if line.startswith("train-") and "dropped" not in line]
    assert sorted(made) == [f"train-{number:06d}" for number in range(18)]
    assert run.printed[0] == f"label set {tmp_path / 'set'}: complete"
    assert sum(line.startswith("label set") for line in run.printed) == 1
    assert "made here: 36 images, 2,160 crops, 18 shards" in run.printed[2]


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_the_run_succeeds(photographs, alone, tmp_path):
    run = start(photographs, tmp_path / "set")
    run.wait_for_shards(2)
    victim = run.workers()[1]
    os.kill(victim, signal.SIGKILL)
    assert run.end() == 0, run.text
    assert run.restarts == 1 and "signal 9" in run.text and "Traceback" not in run.text
    assert KILL.contents(tmp_path / "set") == alone


def test_a_worker_killed_before_it_could_begin_is_started_again(photographs, alone, tmp_path):
    run = start(photographs, tmp_path / "set")
    JOBS.wait_until(lambda: len(run.workers()) == 2)
    os.kill(run.workers()[0], signal.SIGKILL)
    assert run.end() == 0, run.text
    assert KILL.contents(tmp_path / "set") == alone


@pytest.mark.slow
def test_a_shard_that_kills_its_worker_each_time_is_given_up_and_named(photographs, tmp_path):
    data, target = tmp_path / "photographs", tmp_path / "set"
    shutil.copytree(photographs, data)
    white = data / "train" / "n07920052" / "coffee_2.jpg"
    Image.new("RGB", (300, 300), "white").save(white)
    more = ["-a", TINY.replace(":tiny", ":deadly")]
    made_here(KILL.command(data, tmp_path / "undisturbed", *MORE, *more))
    expected = KILL.contents(tmp_path / "undisturbed")

    run = start(data, target, *more, SLG_TEST_DEADLY="1")
    assert run.end() == 1
    (shard,) = (name for name in expected if name.endswith(".tar") and not (target / name).exists())
    assert not (target / "_info.json").exists()
    last = run.said[-1]
    assert shard in last and "signal 9" in last and "run the same command" in last
    assert f"{shard[:-4]} is given up after 3 failures" in run.text and "Traceback" not in run.text
    assert "not complete, 1 shard given up" in run.printed[0]

    again = start(data, target, *more)
    assert again.end() == 0, again.text
    assert KILL.contents(target) == expected


@pytest.fixture
def terminal():
    """Handle SIGINT as in a terminal, even if the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("shards", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_ctrl_c_ends_all_processes_and_resume_completes(photographs, alone, tmp_path, shards):
    """With 0 shards: while the workers are still loading."""
    run = start(photographs, tmp_path / "set")
    JOBS.wait_until(lambda: len(run.workers()) == 2)
    run.wait_for_shards(shards)
    processes = JOBS.below(run.process.pid)
    os.killpg(run.process.pid, signal.SIGINT)
    assert run.end() == 130
    assert run.said[-1].startswith("slg-wds generate: interrupted") and "Traceback" not in run.text
    all_gone(processes)
    if shards:
        assert not list((tmp_path / "set").rglob(".tmp-*"))
        assert not (tmp_path / "set" / "_info.json").exists()
    assert finished(photographs, tmp_path / "set") == alone


@pytest.mark.parametrize("kind", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_workers_do_not_outlive_the_run(photographs, alone, tmp_path, kind):
    run = start(photographs, tmp_path / "set")
    run.wait_for_shards(3)
    workers = run.workers()
    os.kill(run.process.pid, kind)
    assert run.end() == (130 if kind == signal.SIGTERM else -kind)
    all_gone(workers)
    assert "Traceback" not in run.text
    assert finished(photographs, tmp_path / "set") == alone


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--devices", "cpu:0"], "1 to 4,096"),
        (["--devices", "cpu:1000000"], "1 to 4,096"),
        (["--gpu", "-1"], "--gpu -1 is below 0"),
        (["-j", "1000000"], "--workers 1000000 is above 4,096"),
        (["--threads-per-forward", "1000000"], "above 4,096"),
        (["--devices", "cuda:977"], "no device cuda:977"),
        (["--devices", "977"], "no device 977"),
        (["--devices", "gpu"], "'gpu' is not understood"),
        (["--devices", "cpu,"], "is not understood"),
        (["--devices", "cpu", "--gpu", "0"], "give one"),
        (["--actors", "2"], "--engine ray"),
        (["--address", "auto"], "--engine ray"),
        (["--gpus-per-actor", "1"], "--engine ray"),
        (["--engine", "ray", "--devices", "cpu:2"], "--engine local"),
        (["--engine", "ray", "--actors", "0"], "below 1"),
        (["--engine", "ray", "--actors", "1000000"], "above 4,096"),
    ],
)
def test_bad_devices_are_one_line_before_anything_is_made(photographs, tmp_path, capsys, given, named):
    from slg_wds.cli import main

    assert main([*KILL.command(photographs, tmp_path / "set", *MORE)[3:], *given]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and named in lines[0], lines
    assert not (tmp_path / "set").exists()


def test_an_error_for_people_in_a_worker_is_told_once(photographs, tmp_path):
    data = tmp_path / "photographs"
    shutil.copytree(photographs, data)
    damaged = data / "train" / "n07920052" / "coffee_2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:4000])
    run = start(data, tmp_path / "set")
    assert run.end() == 1
    told = [line for line in run.said if "coffee_2" in line]
    assert told == run.said[-1:] and "--on-error skip" in told[0]
    assert "Traceback" not in run.text and "started again" not in run.text
    assert not list((tmp_path / "set").rglob(".tmp-*"))


def test_wrong_options_that_a_worker_finds_are_told_once(photographs, tmp_path):
    run = start(photographs, tmp_path / "set", "--label_type", "marginal_smoothing_k21")
    assert run.end() == 2
    assert len(run.said) == 1 and "21 classes" in run.said[0]
    assert not (tmp_path / "set").exists()
