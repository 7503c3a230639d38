"""A label set for other people's trainers, what they were given of it, and a student of theirs."""

from __future__ import annotations

import torch
from torch import nn

from slg_wds.replay.batch import Batch
from support.models.tiny_students import plain
from support.sets.replay_sets import Made, make

BATCH = 24  # crops, 2 of an image: of 36 images 3 batches an epoch
Given = tuple[tuple[str, ...], tuple[int, ...]]

__all__ = ["BATCH", "Made", "given", "loader_of", "make", "parameters", "student", "walked"]


def loader_of(made: Made, **options):
    return made.loader(
        **{"global_batch_size": BATCH, "crops_per_image": 2, "threads": 1, "prefetch": 1, **options}
    )


def given(batch: Batch) -> Given:
    """Which crops a batch holds."""
    return tuple(batch.key), tuple(batch.crop.tolist())


def walked(made: Made, epochs: int, **options) -> list[Given]:
    """The batches of plain loops over so many epochs."""
    loader = loader_of(made, **options)
    return [given(batch) for _ in range(epochs) for batch in loader]


def student() -> nn.Module:
    """The same each time."""
    torch.manual_seed(0)
    return plain()


def parameters(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
