"""GPU settings while a teacher runs, that they are restored, and how the device is described."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import slg_wds
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.errors import SlgWdsError, UsageError
from slg_wds.generation.command import GenerateTask
from slg_wds.generation.description import SOFTWARE, run_provenance, shard_provenance
from slg_wds.generation.recipe import Recipe
from slg_wds.teachers import load_teacher, parse_teachers
from slg_wds.teachers.about import about_device
from support.models.names import TINY

RESTORED = """
import sys, torch
from torch import backends as b
from slg_wds.teachers.forwards.backends import gpu_settings

def state():
    def read(place, name):
        try:
            return getattr(place, name, "no such setting")
        except RuntimeError:
            return "mixed"
    names = [(b.cudnn, n) for n in ("benchmark", "deterministic", "allow_tf32")] + [(b.cuda.matmul, "allow_tf32")]
    names += [(p, "fp32_precision") for p in (b.cuda.matmul, getattr(b.cudnn, "conv", 0), getattr(b.cudnn, "rnn", 0))]
    return [read(*one) for one in names]

def newer():
    if hasattr(b.cudnn, "conv"):
        b.cuda.matmul.fp32_precision, b.cudnn.conv.fp32_precision = "tf32", "ieee"

def older():
    b.cudnn.benchmark, b.cudnn.allow_tf32, b.cuda.matmul.allow_tf32 = True, True, True

{"fresh": lambda: None, "newer": newer, "older": older, "high": lambda: torch.set_float32_matmul_precision("high")}[
    sys.argv[1]]()
def as_before():
    # What torch refused to read before was not the caller's setting.
    return all(old in ("mixed", new) for old, new in zip(before, state(), strict=True))

before = state()
for precision, tf32 in (("fp32", False), ("tf32", True), ("bf16", False)):
    with gpu_settings(torch.device("cuda"), precision):
        assert state()[:4] == [False, True, tf32, tf32], state()
    assert as_before(), (before, state())
    try:
        with gpu_settings(torch.device("cuda"), precision):
            raise KeyError
    except KeyError:
        assert as_before()
"""


@pytest.mark.parametrize("caller", ["fresh", "older", "newer", "high"])
def test_a_callers_settings_are_as_before(caller):
    """Each runs in its own process, because torch refuses to read the old settings once the new ones were used."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", RESTORED, caller], check=True, timeout=120)


def test_the_settings_hold_during_a_forward_and_no_longer(monkeypatch):
    teacher = load_teacher(parse_teachers(f"private:{TINY}")[0])
    seen = []
    teacher.module.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.deterministic))
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    teacher.logits(pixels)
    monkeypatch.setattr("slg_wds.teachers.teacher.gpu_settings", gpu_of_nobody)
    teacher.logits(pixels)
    assert seen == [False, True] and torch.backends.cudnn.deterministic is False


def gpu_of_nobody(device, precision):
    from slg_wds.teachers.forwards.backends import gpu_settings

    return gpu_settings(torch.device("cuda"), precision)


def test_the_current_device_is_the_teachers_during_a_run_and_no_longer(monkeypatch, photographs, tmp_path):
    told = []

    class Current:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            told.append(f"in {self.device}")

        def __exit__(self, *_):
            told.append(f"out {self.device}")

    monkeypatch.setattr(torch.cuda, "device", Current)
    config = slg_wds.GenerateConfig(
        data=str(photographs), arch=TINY, teacher_source="private", save_path=str(tmp_path)
    )
    with pytest.raises(SlgWdsError, match="no device cuda:7"):
        GenerateTask(Recipe.of(config), ("cuda:7",), None)(0, 1, RunObserver())
    assert told == ["in cuda:7", "out cuda:7"]


def test_tf32_is_for_gpus():
    with pytest.raises(
        UsageError, match=r"--precision tf32 is for GPUs, not cpu; use --precision fp32 or bf16"
    ):
        load_teacher(parse_teachers(f"private:{TINY}")[0], precision="tf32")


def on(kind: str, precision: str) -> SimpleNamespace:
    one = SimpleNamespace(precision=precision, name="timm:x", no_graph=None)
    name = "NVIDIA H100" if kind == "cuda" else "cpu AVX2"
    return SimpleNamespace(device=torch.device(kind), device_name=name, teachers=[one], code=dict)


@pytest.mark.parametrize(
    ("built", "usable", "asked", "warned"),
    [
        ("13.0", False, False, True),
        ("13.0", False, True, False),
        (None, False, False, False),
        ("13.0", True, False, False),
    ],
)
def test_a_torch_for_gpus_that_finds_none_says_so(monkeypatch, built, usable, asked, warned):
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    said = about_device(on("cpu", "fp32"), 4, asked)
    assert said[0] == "on cpu AVX2, 4 threads a forward, fp32"
    assert [line.startswith("warning: this torch is built for GPUs (CUDA 13.0)") for line in said[1:]] == [
        True
    ] * warned
    assert "--" not in "".join(said)  # only a command knows its options
    advised = about_device(on("cpu", "fp32"), 4, asked, "give --devices cpu")
    assert [line.endswith("nvidia-smi, or give --devices cpu") for line in advised[1:]] == [True] * warned


@pytest.mark.parametrize(
    ("precision", "capability", "said"),
    [("fp32", (9, 0), True), ("fp32", (7, 0), False), ("tf32", (9, 0), False), ("bf16", (9, 0), False)],
)
def test_what_exact_fp32_costs_is_said(monkeypatch, precision, capability, said):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    lines = about_device(on("cuda", precision), 4, False)
    assert lines[0] == f"on NVIDIA H100, {precision}"
    assert ["--precision tf32" in line for line in lines[1:]] == [True] * said


def test_a_run_says_where_it_runs_once(photographs, tmp_path, capsys):
    slg_wds.generate(
        slg_wds.GenerateConfig(
            data=str(photographs), arch=TINY, teacher_source="private", save_path=str(tmp_path / "set"),
            num_crops=2, num_seg=16, threads_per_forward=1, workers=1, samples_per_shard=36,
        )
    )  # fmt: skip
    said = capsys.readouterr().err.splitlines()
    assert (
        sum(line.startswith("on cpu ") and line.endswith(", 1 thread a forward, fp32") for line in said) == 1
    )


def test_a_gpus_libraries_are_recorded_where_one_labels(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    config = slg_wds.GenerateConfig(data="d", arch="a", threads_per_forward=3)
    of_cpu, of_gpu = (
        shard_provenance(run_provenance(config, on(kind, "fp32")))["software"] for kind in ("cpu", "cuda")
    )
    assert list(of_cpu) == list(SOFTWARE)
    assert of_gpu == {**of_cpu, "cuda": "13.0", "cudnn": "91002"}


def test_threads_of_a_forward_are_recorded_where_they_move_a_bit():
    config = slg_wds.GenerateConfig(data="d", arch="a", threads_per_forward=3)
    on_cpu, on_gpu = (run_provenance(config, on(kind, "fp32")) for kind in ("cpu", "cuda"))
    assert on_cpu["threads_per_forward"] == 3 and "threads_per_forward" not in on_gpu
    assert set(on_cpu) - set(on_gpu) == {"threads_per_forward"}
    assert set(shard_provenance(on_cpu)) - set(shard_provenance(on_gpu)) == {"threads_per_forward"}
