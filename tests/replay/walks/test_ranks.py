"""The rank of a loader: as given, from torch.distributed, or from the launcher's variables."""

from __future__ import annotations

import pytest
import torch.distributed

from slg_wds.errors import UsageError
from slg_wds.replay.ranks import local_ranks, rank_of

NAMES = (
    "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID",
    "SLURM_STEP_TASKS_PER_NODE", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT",
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMI_SIZE", "LOCAL_RANK", "NODE_RANK",
)  # fmt: skip
BATCH_SCRIPT = str(0xFFFFFFFB)


@pytest.fixture
def launched(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0"}, (3, 8)),
        (
            {"RANK": "1", "WORLD_SIZE": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "1"},
            (1, 4),
        ),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}, (3, 4)),
        ({"PMI_RANK": "1", "PMI_SIZE": "4"}, (1, 4)),  # MPICH, Intel MPI
        (  # the script of sbatch runs mpirun, and all its processes inherit the script's variables
            {
                "PMI_RANK": "3",
                "PMI_SIZE": "4",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "4",
                "SLURM_STEP_ID": BATCH_SCRIPT,
            },
            (3, 4),
        ),
        (  # srun within a shell that srun started with PMI
            {
                "PMI_RANK": "0",
                "PMI_SIZE": "1",
                "SLURM_PROCID": "2",
                "SLURM_NTASKS": "4",
                "SLURM_STEP_ID": "1",
            },
            (2, 4),
        ),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"},
            (1, 2),
        ),
        ({"SLURM_NTASKS": "8"}, (0, 1)),  # a shell within an allocation
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 1)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "9"}, (0, 1)),  # trainings of their own
    ],
)
def test_launchers(launched, variables, expected):
    launched(**variables)
    assert rank_of(None, None) == expected
    assert rank_of(5, 7) == (5, 7)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, "RANK is set but WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set but RANK is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 and WORLD_SIZE 2"),
        ({"OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_RANK is set but OMPI_COMM_WORLD_SIZE is not"),
        ({"PMI_RANK": "4", "PMI_SIZE": "4"}, "PMI_RANK is 4 and PMI_SIZE 4"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one', not a number"),
        (
            {"SLURM_PROCID": "8", "SLURM_NTASKS": "8", "SLURM_STEP_ID": "0"},
            "SLURM_PROCID is 8 and SLURM_NTASKS 8",
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, "task 0 of 8, but srun did not start it"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_ID": BATCH_SCRIPT}, "srun did not start it"),
    ],
)
def test_contradictions_are_refused_with_what_to_do(launched, variables, message):
    launched(**variables)
    with pytest.raises(UsageError, match=message) as caught:
        rank_of(None, None)
    assert "world_size=" in caught.value.hint


def test_a_child_of_lightning_is_told_where_to_make_the_loader(launched):
    """Its launcher gives no rank, and without the number of machines none can be computed."""
    launched(LOCAL_RANK="1", NODE_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    with pytest.raises(
        UsageError, match=r"Lightning started this process.*make the loader in train_dataloader\(\)"
    ):
        rank_of(None, None)
    assert rank_of(1, 2) == (1, 2)


def test_what_is_given_must_be_whole_and_possible(launched):
    with pytest.raises(UsageError, match="give both or neither"):
        rank_of(0, None)
    with pytest.raises(UsageError, match="rank 2 of 2 ranks"):
        rank_of(2, 2)


def test_torch_distributed_counts_before_variables(launched, tmp_path):
    launched(RANK="1", WORLD_SIZE="2")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert rank_of(None, None) == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


def test_ranks_of_a_machine(launched):
    assert local_ranks(8) == 1
    launched(SLURM_STEP_TASKS_PER_NODE="4(x2),3")
    assert local_ranks(11) == 4
    launched(LOCAL_WORLD_SIZE="2")
    assert local_ranks(11) == 2 and local_ranks(1) == 1
