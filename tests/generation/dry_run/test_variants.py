"""What a dry run on a GPU says of other precisions."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import torch

import slg_wds
from slg_wds.generation.dry_run import prediction
from slg_wds.generation.dry_run.sizes import PredictedSizes
from slg_wds.generation.dry_run.variants import VARIANTS, timed_variants
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from support.models.names import TINY

TOWERS = """
from torch import nn

def tower(width):
    model = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.pretrained_cfg = {'input_size': (3, 32, 32), 'interpolation': 'bilinear'}
    return model

def narrow():
    return tower(4)

def wide():
    return tower(6)
"""


def job_of(photographs, **options):
    config = slg_wds.GenerateConfig(
        data=str(photographs),
        num_seg=16,
        threads_per_forward=1,
        workers=1,
        **{"arch": TINY, "teacher_source": "private", **options},
    )
    return open_job(Recipe.of(config), "cpu", save=False)


def test_each_variant_is_timed_by_itself_and_a_failure_is_told(photographs, monkeypatch):
    ran = []
    monkeypatch.setattr(
        torch, "compile", lambda run, **options: lambda images: ran.append("compiled") or run(images)
    )
    variants = (("fp32", False), ("fp16", False), ("bf16", True))
    lines = timed_variants(job_of(photographs), 18_000, variants, forwards=2)
    assert len(lines) == 4 and ran
    rates = {}
    for line in (lines[1], lines[3]):
        name, rate = re.fullmatch(
            r"    (.+): about [\d.]+ (?:s|min|h|days) \(([\d,.]+) crops/s\)", line
        ).groups()
        rates[name] = float(rate.replace(",", ""))
    assert rates.keys() == {"fp32", "bf16 compiled"} and min(rates.values()) > 100
    assert lines[2] == "    fp16: not possible, fp16 on a CPU is many times slower than fp32"


def test_towers_of_different_widths_are_timed(photographs, tmp_path):
    """Their embeddings lie side by side; there is no mean of them."""
    (tmp_path / "towers.py").write_text(TOWERS)
    arch = f"{tmp_path}/towers.py:narrow,{tmp_path}/towers.py:wide"
    job = job_of(photographs, arch=arch, output="embedding")
    lines = timed_variants(job, 18_000, (("fp32", False),), forwards=1)
    assert lines[1].startswith("    fp32: about ")


def test_a_dry_run_tells_them_for_a_gpu_only(photographs, monkeypatch):
    monkeypatch.setattr(prediction, "timed_variants", lambda job, crops: [f"variants of {crops}"])
    job = job_of(photographs)
    on_cpu = prediction._predicted(job, [0], PredictedSizes(360, 0, 4), [0.1]).summary
    ensemble = SimpleNamespace(device=torch.device("cuda"), device_name="H100", name="x", num_classes=20)
    gpu_job = dataclasses.replace(job, teacher=ensemble)
    on_gpu = prediction._predicted(gpu_job, [0], PredictedSizes(360, 0, 4), [0.1]).summary
    assert on_gpu[-1] == f"variants of {36 * 500}" and not [line for line in on_cpu if "variants" in line]
    assert VARIANTS == (("fp32", False), ("bf16", False), ("bf16", True))
