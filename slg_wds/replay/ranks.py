"""Which rank of how many this process is, and what it takes of a global batch."""

from __future__ import annotations

import os
import sys

from slg_wds.errors import ReplayError, UsageError


def rank_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """(rank, world size): as given, else torch.distributed's, else torchrun's variables, else (0, 1).

    Raises UsageError for one without the other, or a rank that is not among them.
    """
    if (rank is None) != (world_size is None):
        raise UsageError(f"rank is {rank} and world_size {world_size}", hint="give both or neither")
    if rank is None or world_size is None:
        rank, world_size = _launched()
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} of {world_size} ranks")
    return rank, world_size


def _launched() -> tuple[int, int]:
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank()), int(distributed.get_world_size())
    # Not Slurm's variables: a batch job that starts one process has SLURM_NTASKS too, and would miss images.
    try:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        given = f"RANK={os.environ.get('RANK')!r}, WORLD_SIZE={os.environ.get('WORLD_SIZE')!r}"
        raise UsageError(f"{given} are not numbers") from None


def local_ranks(world_size: int) -> int:
    """How many ranks share this machine, by torchrun's LOCAL_WORLD_SIZE; 1 where it is not set."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, min(int(text), world_size)) if text.isdigit() else 1


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
