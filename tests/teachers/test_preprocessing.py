"""What a checkpoint says of how its model was shown images, and settings that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchvision import models

from slg_wds.errors import SlgWdsError, TeacherError, UsageError
from slg_wds.teachers import TeacherSpec, load_teacher
from support.models.loading import check_same, load

SHOWN = {"input_size": 64, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.25], "interpolation": "nearest"}


@pytest.mark.parametrize("source", ["timm", "pytorch", "private"])
def test_a_checkpoint_that_says_how_its_model_was_shown_images_is_believed(
    tmp_path: Path, private_file: Path, source: str
) -> None:
    """A student becomes a teacher: labels of other pixels than it learned from would be worse, without a word."""
    arch, module = {
        "timm": ("test_vit", timm.create_model("test_vit", img_size=64)),  # made for one size
        "pytorch": ("squeezenet1_1", models.squeezenet1_1()),
        "private": (f"{private_file}:with_settings", load(f"private:{private_file}:plain").module),
    }[source]
    torch.save({"state_dict": module.state_dict(), "preprocessing": {**SHOWN, "else": 1}}, tmp_path / "w.pth")
    teacher = load(arch, source, tmp_path / "w.pth")
    assert teacher.preprocessing.identity() == SHOWN
    assert "; input_size, mean, std, interpolation from w.pth [state_dict]" in teacher.preprocessing_from
    check_same(teacher, module)
    given = load(arch, source, tmp_path / "w.pth", interpolation="bicubic").preprocessing
    assert given.identity() == {**SHOWN, "interpolation": "bicubic"}


def test_what_a_checkpoint_says_is_checked(tmp_path: Path) -> None:
    module = timm.create_model("test_resnet")
    for settings, message in (
        ({"std": [0, 1, 1]}, "std .* must be above 0"),
        ({"input_size": "big"}, "input_size"),
    ):
        torch.save({"state_dict": module.state_dict(), "preprocessing": settings}, tmp_path / "w.pth")
        with pytest.raises(TeacherError, match=message):
            load("test_resnet", path=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "fp64"}, "unknown precision 'fp64'; known are fp32, tf32, bf16, fp16"),
        ({"precision": "fp16"}, "fp16 on a CPU"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:99"}, "no device cuda:99"),
        ({"interpolation": "lanczos"}, "--interpolation 'lanczos' is not one of"),
        ({"mean": (1, 2)}, "--mean (1, 2) is not three numbers"),
    ],
)
def test_settings_are_refused_before_anything_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_teacher(TeacherSpec("private", "not_a_package:make"), **settings)
    assert message in str(caught.value)
    assert isinstance(caught.value, SlgWdsError)
