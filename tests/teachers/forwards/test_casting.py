"""Weights are cast once where that changes no bit of the logits, and are left where it does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slg_wds.teachers.forwards.scenes import scenes
from slg_wds.teachers.preprocessing import Preprocessing
from slg_wds.teachers.teacher import Teacher
from support.models.built import teacher_of

PREPROCESSING = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", 0.9)


class Normed(nn.Linear):
    """Divides its weight by its size first, in the weight's own precision."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight / self.weight.pow(2).sum(1, keepdim=True).sqrt(), self.bias)


class Exact(nn.Linear):
    """Leaves autocast for its product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight, self.bias)


def model(last: type[nn.Linear] = nn.Linear) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=16),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), last(64, 20),
    )  # fmt: skip


def teacher(module: nn.Module, precision: str, compile: bool = False) -> Teacher:
    return teacher_of(module, PREPROCESSING, precision=precision, compile=compile)


def oracle(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Autocast over float32 weights, as torch documents it."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PREPROCESSING.mean, PREPROCESSING.std))
    module = module.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    pixels = images.contiguous(memory_format=torch.channels_last).float().div(255).sub(mean).div(std)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        return module(pixels).float()


@pytest.mark.parametrize(("last", "cast"), [(nn.Linear, True), (Normed, False), (Exact, False)])
def test_logits_keep_their_bits(last, cast):
    images = scenes(6, 32, 9)
    expected = oracle(copy.deepcopy(model(last)), images)
    one = teacher(model(last), "bf16")
    assert one.weights_cast is cast
    layers = [layer for layer in one.module if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16 if cast else torch.float32}
    assert {layer.bias.dtype for layer in layers} == {torch.bfloat16 if cast else torch.float32}
    assert one.module[1].weight.dtype == torch.float32, "batch norm computes in float32"
    assert torch.equal(one.logits(images), expected)


def test_exact_and_compiled_teachers_keep_float32_weights(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda run, **options: run)
    for one in (teacher(model(), "fp32"), teacher(model(), "bf16", compile=True)):
        assert not one.weights_cast and {p.dtype for p in one.module.parameters()} == {torch.float32}


def test_a_weight_that_two_layers_share_is_cast_once():
    module = model()
    module.append(nn.Linear(20, 64)).append(nn.Linear(64, 20))
    module[-1].weight = module[6].weight
    one = teacher(module, "bf16")
    assert one.weights_cast and one.module[-1].weight is one.module[6].weight


def test_a_computed_weight_is_left():
    module = model()
    nn.utils.parametrizations.weight_norm(module[6])
    one = teacher(module, "bf16")
    originals = module[6].parametrizations.weight
    assert {originals.original0.dtype, originals.original1.dtype} == {torch.float32}
    assert one.module[0].weight.dtype in (torch.bfloat16, torch.float32)
