"""Ranks and cores under real launchers, and cores under quotas of control groups."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from slg_wds.concurrency.cores import quota, share
from slg_wds.concurrency.rank import Rank
from slg_wds.engines.claims import launched_rank

SAY = """
import json, os
from slg_wds.engines.claims import launched_rank
from slg_wds.concurrency.cores import cores
from slg_wds.concurrency.rank import local_rank, local_size
from slg_wds.replay.ranks import local_ranks, rank_of
found = launched_rank()
said = {"generation": [found.rank, found.world_size], "loader": rank_of(None, None), "here": local_ranks(8),
        "local": [local_rank(), local_size()], "cores": cores()}
print("SAID" + json.dumps(said) + "END", flush=True)
"""


def mpirun() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        pytest.skip("openmpi is not installed")
    return found


def said_under(*launcher: str) -> list[dict]:
    """Return what each process of a launcher prints, by rank."""
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "TMPDIR": "/tmp"}
    done = subprocess.run(
        [*launcher, sys.executable, "-c", SAY],
        capture_output=True, text=True, timeout=120, env={**os.environ, **root},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(part.partition("END")[0]) for part in done.stdout.split("SAID")[1:]]
    return sorted(found, key=lambda one: one["loader"])


@pytest.mark.parametrize("bound", [False, True])
def test_ranks_of_mpirun(bound):
    if bound and (len(os.sched_getaffinity(0)) < 2 or os.cpu_count() != len(os.sched_getaffinity(0))):
        pytest.skip("there are too few cores to bind to")
    how = ["--bind-to", "core" if bound else "none", "--oversubscribe", "-np", "2"]
    said = said_under(mpirun(), *how)
    assert [one["loader"] for one in said] == [one["generation"] for one in said] == [[0, 2], [1, 2]]
    assert [one["local"] for one in said] == [[0, 2], [1, 2]] and {one["here"] for one in said} == {2}
    machine = quota() or len(os.sched_getaffinity(0))
    assert {one["cores"] for one in said} == {1 if bound else max(1, machine // 2)}


@pytest.fixture
def alone(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI_")) or name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_an_array_of_jobs_with_mpirun_in_each(alone):
    variables = {
        "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "3", "PMI_RANK": "1", "PMI_SIZE": "4",
    }  # fmt: skip
    for name, value in variables.items():
        alone.setenv(name, value)
    assert launched_rank() == Rank(5, 12)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8"},
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_ID": str(0xFFFFFFFB)},
        {"SLURM_PROCID": "0"},
    ],
)
def test_the_script_of_sbatch_makes_the_whole_set(alone, variables):
    for name, value in variables.items():
        alone.setenv(name, value)
    assert launched_rank() is None


@pytest.mark.parametrize(
    ("bound", "machine", "limit", "allotted", "processes", "expected"),
    [
        (128, 128, None, None, 1, 128),
        (128, 128, None, None, 8, 16),  # torchrun
        (16, 128, None, None, 8, 16),  # each bound to its own: not divided again
        (32, 128, None, 32, 4, 8),  # of a job with a part of the machine, unbound
        (8, 128, None, 32, 4, 8),  # and bound
        (128, 128, 16, None, 4, 4),  # a container
        (128, 128, 16, None, 1, 16),
        (4, 128, 16, None, 4, 4),
        (None, 10, None, None, 4, 2),  # an operating system without affinity
        (4, 4, None, None, 9, 1),
        (4, 4, 1, None, 1, 1),
    ],
)
def test_cores_are_divided_once(bound, machine, limit, allotted, processes, expected):
    assert share(bound, machine, limit, allotted, processes) == expected


def tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A file tree with the files of a kernel's control groups."""
    for name, content in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return root


V1 = "5:cpuset:/\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"sys/fs/cgroup/cpu.max": "400000 100000"}, 4),  # within a container
        ("0::/", {"sys/fs/cgroup/cpu.max": "150000 100000"}, 2),  # a part of a core is one to run on
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ("0::/", {}, None),  # the root group of a machine
        ("0::/a/b", {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b", {"sys/fs/cgroup/a/b/cpu.max": "50000 100000", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 1),
        (V1, {"sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "200000",
              "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000"}, 2),
        # A container sees its own group where the topmost one should be.
        (V1, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "600000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 6),
        (V1, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/\n", {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000"}, None),
        ("", {}, None),  # no such kernel
    ],
)  # fmt: skip
def test_quotas_of_control_groups(tmp_path, groups, files, expected):
    assert quota(tree(tmp_path, groups, files)) == expected


def test_a_quota_limits_the_cores(tmp_path, alone):
    from slg_wds.concurrency import cores

    alone.setattr(cores, "_ROOT", tree(tmp_path, "0::/", {"sys/fs/cgroup/cpu.max": "100000 100000"}))
    assert cores.cores() == 1


@pytest.mark.parametrize(
    ("bound", "processes", "expected"),
    [
        (set(range(4)), "4", 2),  # with three others on two nodes: two on this one
        (set(range(4)), "2", 4),
        (set(range(8)), "4", 2),  # unbound
        ({0, 1}, "4", 2),  # bound to its own
        ({4, 5, 6, 7}, "1", 4),
    ],
)
def test_a_numa_node_is_shared_by_the_processes_that_are_bound_to_it(
    tmp_path, alone, bound, processes, expected
):
    from slg_wds.concurrency import cores

    nodes = {f"sys/devices/system/node/node{n}/cpulist": f"{4 * n}-{4 * n + 2},{4 * n + 3}" for n in (0, 1)}
    alone.setattr(
        cores, "_ROOT", tree(tmp_path, "0::/", {**nodes, "sys/devices/system/node/node2/cpulist": ""})
    )
    alone.setattr(cores.os, "sched_getaffinity", lambda process: bound, raising=False)
    alone.setattr(cores.os, "cpu_count", lambda: 8)
    alone.setenv("LOCAL_WORLD_SIZE", processes)
    assert cores.numa_nodes() == [{0, 1, 2, 3}, {4, 5, 6, 7}]
    assert cores.cores() == expected
