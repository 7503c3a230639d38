"""A full memory: each command says what to do, with options that it has."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

from slg_wds.cli import COMMANDS, _resolve, main
from slg_wds.demo import command as demo
from slg_wds.errors import MemoryFullError
from slg_wds.teachers import Ensemble
from support.models.names import TINY
from support.sets import trust_sets

FULL = """
import torch

class Full(torch.nn.Module):
    pretrained_cfg = {'input_size': (3, 32, 32), 'mean': (0.5,) * 3, 'std': (0.5,) * 3,
                      'interpolation': 'bilinear', 'crop_pct': 0.875}

    def forward(self, x):
        if len(x) > 2:
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return x.flatten(1)[:, :: 3 * 8 * 8]

def factory():
    return Full()
"""


def advice(capsys, command: str, *arguments: str) -> str:
    """What a command that fails for lack of memory says to do. Every option in it is one of that command."""
    assert main([command, *arguments]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "out of memory" in said
    hint = said.partition("GiB; ")[2]
    have = {field.name for field in dataclasses.fields(_resolve(COMMANDS[command].config))}
    assert {name.replace("-", "_") for name in re.findall(r"--([a-z-]+)", hint)} <= have and hint
    return hint


@pytest.fixture
def full(small_images, tmp_path) -> list[str]:
    """The images, and a teacher that takes two of them at once and no more."""
    (tmp_path / "full.py").write_text(FULL)
    folders = sorted((small_images / "train").iterdir())
    (tmp_path / "classes").write_text("".join(f"{folder.name} {n}\n" for n, folder in enumerate(folders)))
    about = ["-a", f"{tmp_path}/full.py:factory", "--teacher_source", "private", "--split", "train"]
    return [str(small_images), *about, "--class-map", str(tmp_path / "classes")]


def test_generate_says_so(full, tmp_path, capsys):
    assert advice(capsys, "generate", *full, "--save-path", str(tmp_path / "set")) == "lower --num-seg"
    assert advice(capsys, "generate", *full, "--dry-run") == "lower --num-seg"


def test_evaluate_says_so_and_then_fits(full, capsys, monkeypatch):
    """Where a torch for GPUs finds none, its warning names no option either that `evaluate` lacks."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert advice(capsys, "evaluate", *full) == "lower --num-seg"
    assert main(["evaluate", *full, "--num-seg", "2"]) == 0
    out, err = capsys.readouterr()
    assert "on 8 images" in out
    (warning,) = [line for line in err.splitlines() if line.startswith("warning: this torch")]
    assert warning.endswith("nvidia-smi")


@pytest.mark.parametrize("command", ["verify", pytest.param("ensemble", marks=pytest.mark.slow)])
def test_where_no_option_helps_none_is_named(small_images, tmp_path, capsys, monkeypatch, command):
    labels = trust_sets.make(small_images, tmp_path / "set")
    monkeypatch.setattr(
        Ensemble, "answers", lambda *_: fail("CUDA out of memory. Tried to allocate 2.00 GiB")
    )
    about = ["-a", TINY, "--teacher_source", "private"]
    if command == "verify":
        about += ["--images", str(small_images)]
    else:
        about += ["--check", str(small_images), "--save-path", str(tmp_path / "new")]
    capsys.readouterr()
    assert "CUDA_VISIBLE_DEVICES=" in advice(capsys, command, str(labels), *about)


def fail(text: str) -> None:
    raise torch.OutOfMemoryError(text)


def test_the_demo_has_no_option_for_it(tmp_path, capsys, monkeypatch):
    error = MemoryFullError("CUDA out of memory. Tried to allocate 2.00 GiB", hint="lower --num-seg")
    monkeypatch.setattr(demo, "_write_photographs", lambda folder: None)
    monkeypatch.setattr(demo, "generate", lambda config: (_ for _ in ()).throw(error))
    assert "CUDA_VISIBLE_DEVICES=" in advice(capsys, "demo", str(tmp_path))


def test_labels_that_only_a_gpu_can_make_are_not_asked_again_on_a_cpu(
    small_images, tmp_path, capsys, monkeypatch
):
    labels = trust_sets.make(small_images, tmp_path / "set", precision="bf16")
    monkeypatch.setattr("slg_wds.verification.answers.asking._teacher_config", tf32_of)
    about = ["-a", TINY, "--teacher_source", "private", "--images", str(small_images)]
    capsys.readouterr()
    assert main(["verify", str(labels), *about]) == 2
    said = capsys.readouterr().err
    assert "the precision tf32, which takes a GPU" in said and "--precision" not in said


def tf32_of(question, labels):
    from slg_wds.config import GenerateConfig

    return GenerateConfig(
        data="images", arch=question.options.arch, teacher_source="private", precision="tf32"
    )
