"""A label set for the trainers of other libraries, what they received from it, and a student."""

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
    """Return which crops a batch has."""
    return tuple(batch.key), tuple(batch.crop.tolist())


def walked(made: Made, epochs: int, **options) -> list[Given]:
    """Return the crops of each batch over `epochs` plain loops."""
    loader = loader_of(made, **options)
    return [given(batch) for _ in range(epochs) for batch in loader]


def student() -> nn.Module:
    """Make the same student each time."""
    torch.manual_seed(0)
    return plain()


def parameters(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
