"""What launchers say of this process: its rank, the number of ranks, and how many of them share this machine.

The environment variables of torchrun, mpirun (Open MPI, MPICH, Intel MPI, MVAPICH2) and Slurm are read in this module
and nowhere else. If launchers are nested, the innermost counts: torchrun may run under mpirun, and both in a Slurm job.

Slurm sets the variables of a task also for the script of `sbatch` and the shell of `salloc`, which are single
processes. Only the tasks of `srun` have a real SLURM_STEP_ID.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from slg_wds.errors import UsageError

_MPI = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
_LOCAL_RANK = (
    "LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "SLURM_LOCALID",
)
_LOCAL_SIZE = (
    "LOCAL_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "MV2_COMM_WORLD_LOCAL_SIZE",
    "MPI_LOCALNRANKS",
    "SLURM_STEP_TASKS_PER_NODE",
)
_OF_LIGHTNING = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")
_NO_STEP = 0xFFFFFFF0  # step numbers from here on stand for batch scripts, salloc's shells and the like
_HINT = "start every process with torchrun, mpirun or srun, or unset both variables to start one by hand"


@dataclass(frozen=True)
class Rank:
    """Which one of a launcher's processes this is.

    Attributes:
        rank: number of this process, 0 to world_size - 1.
        world_size: number of processes.
    """

    rank: int
    world_size: int

    def block(self, shards: int) -> range:
        """Return the numbers of the shards that this rank makes first: an even part of 0 to shards - 1."""
        return range(self.rank * shards // self.world_size, (self.rank + 1) * shards // self.world_size)

    def within(self, worker: int, workers: int) -> Rank | None:
        """Return the rank of a worker of this process among the workers of all processes.

        Args:
            worker: number of the worker in this process, 0 to workers - 1.
            workers: number of workers that each process starts.

        Returns:
            The rank; None if there is only one worker in all.
        """
        size = self.world_size * workers
        return Rank(self.rank * workers + worker, size) if size > 1 else None


ALONE = Rank(0, 1)


def launched() -> Rank | None:
    """Return the rank that torchrun, mpirun or srun gave this process; None if none of them started it.

    Raises:
        UsageError: the variables are not numbers or contradict each other.
    """
    return _numbered("RANK", "WORLD_SIZE") or _of_mpirun() or (slurm_task() if by_srun() else None)


def by_lightning() -> bool:
    """Return whether Lightning's own launcher started this process: it says everything but the rank."""
    return "RANK" not in os.environ and all(name in os.environ for name in _OF_LIGHTNING)


def _of_mpirun() -> Rank | None:
    for names in _MPI:
        found = _numbered(*names)
        # srun sets these variables too. A world of one process is its own, and another launcher may run inside it.
        if found and found.world_size > 1:
            return found
    return None


def slurm_task() -> Rank | None:
    """Return the rank by Slurm's variables alone; None outside of Slurm.

    If `by_srun` is false, they may be those of a script of `sbatch` or a shell of `salloc`, which is no task.

    Raises:
        UsageError: the variables are not numbers or contradict each other.
    """
    if "SLURM_PROCID" not in os.environ or (not by_srun() and "SLURM_NTASKS" not in os.environ):
        return None
    return _numbered("SLURM_PROCID", "SLURM_NTASKS")


def by_srun() -> bool:
    """Return whether srun started this process or an ancestor of it.

    Raises:
        UsageError: SLURM_STEP_ID is not a number.
    """
    step = _number("SLURM_STEP_ID")
    return step is not None and step < _NO_STEP


def array_task() -> Rank | None:
    """Return the rank of this task in a Slurm array START-END:STEP; None outside of one, or in a list with gaps.

    Raises:
        UsageError: the variables are not numbers or contradict each other.
    """
    number, count = _number("SLURM_ARRAY_TASK_ID"), _number("SLURM_ARRAY_TASK_COUNT")
    if number is None or count is None:
        return _numbered("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    rank = (number - (_number("SLURM_ARRAY_TASK_MIN") or 0)) // (_number("SLURM_ARRAY_TASK_STEP") or 1)
    return Rank(rank, count) if 0 <= rank < count else None


def local_rank() -> int | None:
    """Return this process's rank among those of its launcher on this machine; None if the launcher does not say."""
    found = _first(_LOCAL_RANK)
    return int(found) if found is not None and found.isdecimal() else None


def local_size() -> int | None:
    """Return how many processes the launcher started on this machine; None if it does not say.

    Slurm gives the numbers of all machines together. Then this is the largest of them.
    """
    # Slurm writes 4(x2),3 for machines with 4, 4 and 3 tasks: the first ones have the most.
    most = re.match(r"\d+", _first(_LOCAL_SIZE) or "")
    return max(1, int(most[0])) if most else None


def one_gpu_each() -> bool:
    """Return whether each process is to use one GPU: always under torchrun, else if several share a machine."""
    return "LOCAL_RANK" in os.environ or (local_size() or 1) > 1


def allotted_cpus() -> int | None:
    """Return how many CPUs of this machine Slurm gave to the job, for all its tasks together; None outside of Slurm."""
    found = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return int(found) if found.isdecimal() and int(found) else None


def _first(names: Sequence[str]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _numbered(rank_name: str, size_name: str) -> Rank | None:
    rank, size = _number(rank_name), _number(size_name)
    if rank is None and size is None:
        return None
    if rank is None or size is None:
        found, lacking = (size_name, rank_name) if rank is None else (rank_name, size_name)
        raise UsageError(f"{found} is set but {lacking} is not", hint=_HINT)
    if not 0 <= rank < size:
        raise UsageError(
            f"{rank_name} is {rank} and {size_name} {size}: ranks go from 0 to size - 1", hint=_HINT
        )
    return Rank(rank, size)


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}, not a number", hint=_HINT) from None
