"""Which rank of how many this process is, and what it takes of a global batch."""

from __future__ import annotations

from slg_wds.concurrency.process_group import group_rank, processes_here
from slg_wds.concurrency.rank import ALONE, Rank, by_lightning, by_srun, launched, slurm_task
from slg_wds.errors import ReplayError, UsageError


def rank_of(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return (rank, world size): as given, else torch.distributed's, else the launcher's, else (0, 1).

    Raises UsageError for one without the other, a rank that is not among them, or variables that contradict each other.
    """
    if (rank is None) != (world_size is None):
        raise UsageError(f"rank is {rank} and world_size {world_size}", hint="give both or neither")
    if rank is None or world_size is None:
        found = group_rank() or _launched()
        rank, world_size = found.rank, found.world_size
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} of {world_size} ranks")
    return rank, world_size


def _launched() -> Rank:
    if by_lightning():
        raise UsageError(
            "Lightning started this process, and says its rank only once training begins",
            hint="make the loader in train_dataloader() of the LightningModule or LightningDataModule, or start all "
            "ranks with torchrun or srun",
        )
    try:
        found = launched()
        task = None if found or by_srun() else slurm_task()
    except UsageError as error:
        error.hint = _GIVE
        raise
    if task is not None and task.world_size > 1:
        # The script of sbatch. Taken at its word, it would miss most of the images.
        raise UsageError(
            f"Slurm says that this is task {task.rank} of {task.world_size}, but srun did not start it",
            hint="start every rank with srun or torchrun, or pass rank=0, world_size=1",
        )
    return found or ALONE


_GIVE = "start all ranks with torchrun, mpirun or srun, or pass rank= and world_size="


def local_ranks(world_size: int) -> int:
    """Return how many ranks share this machine, as far as is known."""
    return min(processes_here(), world_size)


def images_of(global_batch_size: int, world_size: int, crops_per_image: int) -> int:
    """Return the images of a global batch of so many crops. Raises ReplayError where it does not divide."""
    if crops_per_image < 1 or global_batch_size < 1:
        raise UsageError(
            f"global_batch_size {global_batch_size} or crops_per_image {crops_per_image} is below 1"
        )
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
