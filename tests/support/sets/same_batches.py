"""Whether two batches are the same in everything: classes, dtypes, shapes, forms in memory and values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from slg_wds.labels.movable import Movable
from slg_wds.replay.batch import Batch


def assert_same_walk(loader: Iterable[Batch], expected: Sequence[Batch]) -> None:
    """Compare the batches of a walk one by one, as a trainer takes them, who keeps none."""
    for number, (batch, wanted) in enumerate(zip(loader, expected, strict=True)):
        assert_same(batch, wanted, f"batch {number}")


def assert_same(found: Any, expected: Any, name: str = "batch") -> None:
    assert type(found) is type(expected), name
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape, _form(found)) == (
            expected.dtype,
            expected.shape,
            _form(expected),
        ), name
        assert torch.equal(found, expected), name
    elif isinstance(expected, Movable):
        assert_same(vars(found), vars(expected), name)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), name
        for key, value in expected.items():
            assert_same(found[key], value, f"{name}.{key}")
    elif isinstance(expected, (tuple, list)):
        assert len(found) == len(expected), name
        for number, value in enumerate(expected):
            assert_same(found[number], value, f"{name}[{number}]")
    else:
        assert found == expected, name


def _form(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Whether a tensor repeats itself, and whether it is channels_last."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return 0 in tensor.stride(), last
