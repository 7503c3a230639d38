"""Pixels are normalised to the same bits on every device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from slg_wds.replay.device import DeviceLoader
from slg_wds.teachers.preprocessing import Preprocessing
from slg_wds.transforms.normalisation import Normalisation
from support.models.built import teacher_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYOUTS = (torch.contiguous_format, torch.channels_last)


class DividesAsCuda(TorchDispatchMode):
    """A tensor divided by a number is multiplied by its reciprocal, as CUDA's kernel does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.startswith("aten::div") and not (
            isinstance(args[1], torch.Tensor) and args[1].dim()
        ):
            reciprocal = torch.tensor(1.0) / torch.tensor(float(args[1]))
            product = {"aten::div": torch.mul, "aten::div_": torch.Tensor.mul_}[func._schema.name]
            return product(args[0], reciprocal)
        return func(*args, **(kwargs or {}))


def levels(layout: torch.memory_format = torch.channels_last) -> torch.Tensor:
    """All 256 values in each channel, twice: uint8 [2, 3, 16, 16]."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    return values.contiguous(memory_format=layout)


def of_a_teacher() -> Callable[[torch.Tensor], torch.Tensor]:
    teacher = teacher_of(nn.Flatten(), Preprocessing(16, MEAN, STD, "bilinear", 0.875))
    return lambda images: teacher.logits(images).view(images.shape)


def of_a_loader() -> Callable[[torch.Tensor], torch.Tensor]:
    return DeviceLoader(None, "cpu", MEAN, STD, None).normalised  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [of_a_teacher, of_a_loader])
def test_a_device_that_multiplies_by_the_reciprocal_gives_the_same_bits(
    make: Callable[[], Callable[[torch.Tensor], torch.Tensor]],
) -> None:
    normalised = make()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    expected = levels().float().div(255).sub(mean).div(std)
    with DividesAsCuda():
        differing = levels().float().div(255).sub(mean).div(std) != expected
        found = normalised(levels())
    assert differing.sum() > 100, "the device is one that would show it"
    assert torch.equal(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_memory_format_stays_and_values_are_rounded_once(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    expected = levels().float().div(255).sub(mean).div(std).to(dtype)
    found = Normalisation(MEAN, STD, "cpu", dtype)(levels(layout))
    assert torch.equal(found, expected) and found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_waits_for_the_device(layout: torch.memory_format) -> None:
    # A meta tensor has no values: whatever asks for one, as a wait for the device does, is an error.
    images = torch.empty((4, 3, 8, 8), dtype=torch.uint8, device="meta", memory_format=layout)
    found = Normalisation(MEAN, STD, "meta")(images)
    assert found.device.type == "meta" and found.dtype == torch.float32
    assert found.is_contiguous(memory_format=layout)
