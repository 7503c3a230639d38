"""Teachers loaded as commands load them, and checked against the module that they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from slg_wds.teachers import Teacher, digest, load_teacher, parse_teachers


def load(arch: str, source: str = "timm", path: Path | str | None = None, **settings: Any) -> Teacher:
    (spec,) = parse_teachers(arch, source, [str(path)] if path else [])
    return load_teacher(spec, **settings)


def saved(module: torch.nn.Module, file: Path) -> Path:
    """Write random weights, the batch norms' statistics included, to `file`."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point() and tensor.ndim < 2:
            tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, file)
    else:
        torch.save({"state_dict": module.state_dict()}, file)
    return file


def random_pixels(teacher: Teacher, count: int = 3) -> torch.Tensor:
    side = teacher.preprocessing.input_size
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)


def expected_logits(module: torch.nn.Module, teacher: Teacher, pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (teacher.preprocessing.mean, teacher.preprocessing.std)
    )
    with torch.no_grad():
        out: torch.Tensor = module.eval()(((pixels / 255) - mean) / std)
    return out


def check_same(teacher: Teacher, module: torch.nn.Module) -> None:
    pixels = random_pixels(teacher)
    assert teacher.weights_digest == digest(module)
    torch.testing.assert_close(
        teacher.logits(pixels),
        expected_logits(module, teacher, pixels),
        rtol=1e-4,
        atol=1e-4,
        check_stride=False,
    )
