"""Ray: actors make the same bytes as one process, on disk and on S3; kills; clusters without the resources."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slg_wds.concurrency import memory
from slg_wds.store import open_store
from support.models.names import TINY
from support.programs import made_here, tool
from support.servers.s3 import running_s3

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
KILL = tool("kill_test")
MORE = ["--samples-per-shard", "2", "--num_crops", "60", "--threads-per-forward", "1"]
RAY = ["--engine", "ray", "--actors", "2"]


@pytest.fixture(scope="module")
def alone(photographs, tmp_path_factory):
    target = tmp_path_factory.mktemp("ray") / "alone"
    made_here(KILL.command(photographs, target, *MORE))
    return KILL.contents(target)


def run(command, **environment):
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


def test_actors_make_the_bytes_of_one_process(photographs, alone, tmp_path):
    done = run(KILL.command(photographs, tmp_path / "set", *MORE, *RAY))
    assert done.returncode == 0, done.stderr
    assert KILL.contents(tmp_path / "set") == alone
    assert "complete" in done.stdout and "18 shards" in done.stdout


def test_actors_make_the_low_rank_labels_of_one_process(photographs, tmp_path):
    options = [*MORE, "--label-type", "lowrank"]
    made_here(KILL.command(photographs, tmp_path / "alone", *options))
    done = run(KILL.command(photographs, tmp_path / "set", *options, *RAY))
    assert done.returncode == 0, done.stderr
    assert KILL.contents(tmp_path / "set") == KILL.contents(tmp_path / "alone")


def test_actors_mix_the_views_of_one_process(photographs, tmp_path):
    options = [*MORE, "--mixup", "0.8", "--cutmix", "1", "--aa", "rand-m9-mstd0.5-inc1", "--reprob", "0.25"]
    made_here(KILL.command(photographs, tmp_path / "alone", *options))
    done = run(KILL.command(photographs, tmp_path / "set", *options, *RAY))
    assert done.returncode == 0, done.stderr
    assert KILL.contents(tmp_path / "set") == KILL.contents(tmp_path / "alone")


@pytest.mark.slow
def test_actors_on_s3_make_the_bytes_of_one_process_on_disk(photographs, alone, tmp_path):
    with running_s3() as server:
        url = f"{server.url}/ray"
        done = run(KILL.command(photographs, url, *MORE, *RAY), **server.environment(), NO_PROXY="127.0.0.1")
        assert done.returncode == 0, done.stderr
        store = open_store(url, server.options())
        for entry in store.list():
            path = tmp_path / "copy" / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.read(entry.name))
    assert KILL.contents(tmp_path / "copy") == alone


def test_actors_keep_freed_memory_and_the_priority_of_the_command(photographs, tmp_path):
    """Otherwise, an actor would map and zero each activation anew, and run at a lower priority."""
    (tmp_path / "telling.py").write_text(
        "import json, os, pathlib, sys\n"
        f"sys.path.insert(0, {str(Path(TINY.partition(':')[0]).parent)!r})\n"
        "import tiny_teacher\n"
        "def tiny():\n"
        "    found = {name: value for name, value in os.environ.items() if name.startswith('MALLOC_')}\n"
        "    found['nice'] = os.nice(0)\n"
        f"    pathlib.Path({str(tmp_path)!r}, f'{os.getpid()}.json').write_text(json.dumps(found))\n"
        "    return tiny_teacher.tiny()\n"
    )
    done = run(
        KILL.command(photographs, tmp_path / "set", *MORE, *RAY, "-a", f"{tmp_path / 'telling.py'}:tiny")
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    expected = {**memory.ENVIRONMENT, "nice": os.nice(0)}
    assert told and all(found == expected for found in told)  # one actor may have made it all


def children(pid):
    """Processes below this one, by name."""
    found, todo = {}, [pid]
    while todo:
        out = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(todo.pop())], capture_output=True)
        for line in out.stdout.decode().splitlines():
            number, _, name = line.strip().partition(" ")
            found[int(number)] = name
            todo.append(int(number))
    return found


def started(command, target):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 120
    while not list(target.glob("train-*.tar")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    return process


def test_a_killed_actor_gets_a_successor(photographs, alone, tmp_path):
    target = tmp_path / "set"
    process = started(KILL.command(photographs, target, *MORE, *RAY), target)
    actors = [pid for pid, name in children(process.pid).items() if "_Worker" in name]
    os.kill(actors[0], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "started again" in err and "complete" in out
    assert KILL.contents(target) == alone


def test_a_killed_driver_leaves_whole_shards_and_the_next_run_finishes(photographs, alone, tmp_path):
    target = tmp_path / "set"
    command = KILL.command(photographs, target, *MORE, *RAY)
    process = started(command, target)
    below = list(children(process.pid))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for pid in below:  # the cluster of this run, where its end takes long
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert KILL.contents(target) == alone


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "127.0.0.1:1"], "127.0.0.1:1"),
        (["--gpus-per-actor", "1"], "GPU"),
        (["--address", "ray://127.0.0.1:10001"], "ray job submit"),
    ],
)
def test_clusters_that_cannot_do_it_are_named_within_a_minute(photographs, tmp_path, options, said):
    begun = time.monotonic()
    done = run(KILL.command(photographs, tmp_path / "set", *MORE, "--engine", "ray", *options))
    assert done.returncode != 0 and said in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert time.monotonic() - begun < 90  # the minute, and the start of Python and Ray
    assert not list(tmp_path.glob("set/*.tar"))


def test_without_ray_the_message_says_how_to_install_it(photographs, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    command = KILL.command(photographs, tmp_path / "set", *MORE, "--engine", "ray")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run(command, PYTHONPATH=path)
    assert done.returncode != 0 and "pip install 'slg-wds[ray]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_the_user_comes_back_once(photographs, tmp_path):
    (tmp_path / "list.txt").write_text("no/such.jpg\n")
    done = run(KILL.command(photographs, tmp_path / "set", *MORE, *RAY, "--list", str(tmp_path / "list.txt")))
    assert done.returncode != 0 and "no/such.jpg" in done.stderr and "Traceback" not in done.stderr, (
        done.stderr
    )


def test_ensemble_on_ray_makes_the_bytes_of_the_local_engine(photographs, tmp_path):
    one = tmp_path / "one"
    made_here(KILL.command(photographs, one, *MORE))
    merged = []
    for name, engine in (("local", ["--processes", "1"]), ("ray", RAY)):
        command = [sys.executable, "-m", "slg_wds", "ensemble", str(one), "--save-path", str(tmp_path / name)]
        done = run([*command, "--samples-per-shard", "3", *engine])
        assert done.returncode == 0, done.stderr
        merged.append(KILL.contents(tmp_path / name))
    assert merged[0] == merged[1]
