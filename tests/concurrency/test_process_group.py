"""How many processes share this machine: by the launcher, else by torch.distributed's group."""

from __future__ import annotations

import os

import pytest
import torch
from torch.testing._internal.distributed import fake_pg  # noqa: F401  # registers the backend

from slg_wds.concurrency import cores
from slg_wds.concurrency.process_group import group_rank, processes_here
from slg_wds.concurrency.rank import Rank

LAUNCHERS = ("SLURM_", "OMPI_", "PMI_", "MPI_", "MV2_", "LOCAL_")


@pytest.fixture
def group_of(monkeypatch):
    """A group of so many processes, on a machine with so many GPUs."""
    for name in list(os.environ):
        if name.startswith(LAUNCHERS) or name in ("RANK", "WORLD_SIZE", "NODE_RANK"):
            monkeypatch.delenv(name)

    def begin(world_size: int, gpus: int, **variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("fake", store=store, rank=1, world_size=world_size)

    yield begin
    torch.distributed.destroy_process_group()


SRUN = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
LIGHTNING = {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "8"}


@pytest.mark.parametrize(
    ("gpus", "variables", "expected"),
    [
        (0, {}, 8),  # torch.multiprocessing.spawn on CPUs
        (8, {}, 8),  # and on GPUs
        (4, {}, 4),  # of two machines
        (1, {}, 1),  # a process that sees only its own GPU: as far as can be known
        (4, LIGHTNING, 4),
        (0, LIGHTNING, 8),
        (8, {"RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "2"}, 2),  # torchrun on a part of the GPUs
        (8, {**SRUN, "SLURM_NTASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, 4),
        # One process of srun or mpirun, which started the others by itself.
        (8, {**SRUN, "SLURM_NTASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}, 8),
        (4, {**SRUN, "SLURM_NTASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, 4),
        (8, {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, 8),
        (8, {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", **LIGHTNING}, 8),
    ],
)
def test_processes_of_a_group_on_this_machine(group_of, gpus, variables, expected):
    group_of(8, gpus, **variables)
    assert group_rank() == Rank(1, 8) and processes_here() == expected


def test_a_group_of_cpus_needs_no_gpus(group_of, monkeypatch):
    group_of(4, gpus=1)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    assert processes_here() == 4


def test_cores_are_shared_by_a_group_that_no_launcher_started(group_of, tmp_path, monkeypatch):
    monkeypatch.setattr(cores, "_ROOT", tmp_path)  # no quotas, no nodes
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 16)
    assert cores.cores() == 16
    group_of(4, gpus=8)
    assert cores.cores() == 4
