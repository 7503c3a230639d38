"""Which rank of how many this process is, and what it takes of a global batch."""

from __future__ import annotations

import os
import re
import sys

from slg_wds.errors import ReplayError, UsageError


def rank_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """(rank, world size): as given, else torch.distributed's, else torchrun's or srun's variables, else (0, 1).

    Raises UsageError for one without the other, a rank that is not among them, or variables that contradict each other.
    """
    if (rank is None) != (world_size is None):
        raise UsageError(f"rank is {rank} and world_size {world_size}", hint="give both or neither")
    if rank is None or world_size is None:
        rank, world_size = _launched()
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} of {world_size} ranks")
    return rank, world_size


def distributed_rank() -> tuple[int, int] | None:
    """Return (rank, world size) in torch.distributed's default group, None where there is no such group."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank()), int(distributed.get_world_size())
    return None


def _launched() -> tuple[int, int]:
    return distributed_rank() or _of_torchrun() or _of_slurm() or (0, 1)


def _of_torchrun() -> tuple[int, int] | None:
    rank, size = _number("RANK"), _number("WORLD_SIZE")
    if rank is None and size is None:
        return None
    if rank is None or size is None:
        found, lacking = ("WORLD_SIZE", "RANK") if rank is None else ("RANK", "WORLD_SIZE")
        raise UsageError(f"{found} is set but {lacking} is not", hint=_GIVE)
    if not 0 <= rank < size:
        raise UsageError(f"RANK is {rank} and WORLD_SIZE {size}", hint=_GIVE)
    return rank, size


def _of_slurm() -> tuple[int, int] | None:
    rank, size = _number("SLURM_PROCID"), _number("SLURM_NTASKS")
    if rank is None or size is None or size == 1:  # sbatch sets SLURM_NTASKS alone
        return None
    if not 0 <= rank < size:
        raise UsageError(f"SLURM_PROCID is {rank} and SLURM_NTASKS {size}", hint=_GIVE)
    step = _number("SLURM_STEP_ID")
    if step is None or step >= _SLURM_NO_STEP:
        # The script of sbatch has both variables too. Taken at their word it would miss most of the images.
        raise UsageError(
            f"Slurm says that this is task {rank} of {size}, but srun did not start it",
            hint="start every rank with srun or torchrun, or pass rank=0, world_size=1",
        )
    return rank, size


_GIVE = "start all ranks with torchrun or srun, or pass rank= and world_size="
_SLURM_NO_STEP = 0xFFFFFFF0  # above are the script of sbatch, the shell of salloc and the like


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}, not a number", hint=_GIVE) from None


def local_ranks(world_size: int) -> int:
    """How many ranks share this machine, by torchrun's or srun's variables; 1 where they do not say."""
    local = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1")
    most = re.match(r"\d+", local)  # Slurm writes 4(x2),3: the first nodes have the most
    return max(1, min(int(most[0]), world_size)) if most else 1


def images_of(global_batch_size: int, world_size: int, crops_per_image: int) -> int:
    """Images of a global batch of so many crops. Raises ReplayError where it does not divide."""
    if crops_per_image < 1 or global_batch_size < 1:
        raise UsageError(f"global_batch_size {global_batch_size}, crops_per_image {crops_per_image}")
    unit = world_size * crops_per_image
    if global_batch_size % unit:
        below = global_batch_size // unit * unit
        near = f"{below} or {below + unit}" if below else str(unit)
        raise ReplayError(
            f"a global batch of {global_batch_size} crops does not divide by {world_size} ranks x "
            f"{crops_per_image} crops per image",
            hint=f"take {near}",
        )
    return global_batch_size // crops_per_image
