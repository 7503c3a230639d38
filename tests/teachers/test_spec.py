"""The options that name teachers, and their preprocessing."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slg_wds.errors import SlgWdsError, TeacherError, UsageError
from slg_wds.teachers import Preprocessing, TeacherSpec, eval_transform, parse_teachers
from slg_wds.teachers.preprocessing import IMAGENET_DEFAULTS, resolve
from support.paths import ROOT


def test_importing_is_cheap() -> None:
    code = "import sys, slg_wds.teachers; print([m for m in ('torch', 'timm', 'torchvision') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arch", "source", "expected"),
    [
        ("resnet50", "timm", [("timm", "resnet50")]),
        ("resnet50", "pytorch", [("pytorch", "resnet50")]),
        ("pkg.mod:make", "private", [("private", "pkg.mod:make")]),
        ("private:a/b.py:make", "timm", [("private", "a/b.py:make")]),
        ("timm:a,pytorch:b,private:m:f", "timm", [("timm", "a"), ("pytorch", "b"), ("private", "m:f")]),
        ("a, timm:b", "pytorch", [("pytorch", "a"), ("timm", "b")]),
        ("hf-hub:timm/resnet18.a1_in1k", "timm", [("timm", "hf-hub:timm/resnet18.a1_in1k")]),
        ("C:/teachers/x.py:make", "private", [("private", "C:/teachers/x.py:make")]),
    ],
)
def test_names_and_sources(arch: str, source: str, expected: list[tuple[str, str]]) -> None:
    specs = parse_teachers(arch, source)
    assert [(spec.source, spec.arch) for spec in specs] == expected
    assert [spec.weight for spec in specs] == [1 / len(specs)] * len(specs)
    assert all(spec.path is None for spec in specs)


@pytest.mark.parametrize(
    ("arch", "source", "message"),
    [
        ("resnet50", "tim", "unknown teacher source 'tim'; did you mean timm? "),
        ("resnet50", "torchvision", "did you mean pytorch? "),
        ("tinn:resnet50", "timm", "unknown teacher source 'tinn'"),
        ("hf-hub:a/b", "pytorch", "unknown teacher source 'hf-hub'"),
        ("", "timm", "an architecture's name is empty"),
        ("a,,b", "timm", "an architecture's name is empty"),
        ("timm:", "timm", "an architecture's name is empty"),
        ("factory", "private", "does not name a factory"),
        ("file.py:", "private", "does not name a factory"),
        (":f", "private", "does not name a factory"),
        ("m:not a name", "private", "does not name a factory"),
    ],
)
def test_names_that_cannot_be(arch: str, source: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_teachers(arch, source)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_per_teacher() -> None:
    assert parse_teachers("a", paths=["with,comma.pth"]) == [TeacherSpec("timm", "a", "with,comma.pth", 1.0)]
    for paths in (["x.pth,y.pth"], ["x.pth", "y.pth"]):
        assert [spec.path for spec in parse_teachers("a,b", paths=paths)] == ["x.pth", "y.pth"]
    assert [spec.path for spec in parse_teachers("a,b", paths=[",y.pth"])] == [None, "y.pth"]
    assert [spec.path for spec in parse_teachers("a,b", paths=[""])] == [None, None]
    with pytest.raises(UsageError, match="--teacher-path: 1 teacher path for 2 teachers"):
        parse_teachers("a,b", paths=["x.pth"])
    with pytest.raises(UsageError, match="2 teacher paths for 1 teacher;"):
        parse_teachers("a", paths=["x.pth", "y.pth"])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6).filter(lambda weights: sum(weights) > 1e-3))
def test_weights_sum_to_one_in_proportion(weights: list[float]) -> None:
    shares = [spec.weight for spec in parse_teachers(",".join("a" * len(weights)), weights=weights)]
    assert math.isclose(math.fsum(shares), 1, rel_tol=1e-12)
    np.testing.assert_allclose(shares, np.array(weights) / sum(weights), rtol=1e-9)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "1 weight for 2 teachers"),
        ([1.0, 2.0, 3.0], "3 weights for 2 teachers"),
        ([], "0 weights for 2 teachers"),
        ([0.0, 0.0], r"the weights are all zero, \[0.0, 0.0\]"),
        ([2.0, -1.0], "at least 0"),
        ([1.0, math.nan], "finite"),
        ([1.0, math.inf], "finite"),
    ],
)
def test_weights_that_cannot_be(weights: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_teachers("a,b", weights=weights)


def test_the_models_own_settings_yield_to_the_users_and_are_filled_from_imagenet() -> None:
    config = {"input_size": (3, 260, 260), "mean": [0.5] * 3, "std": [0.25] * 3, "url": "ignored"}
    found, origin = resolve(config, "its cfg", {"std": (0.1, 0.2, 0.3), "crop_pct": 0.9})
    assert found == Preprocessing(260, (0.5,) * 3, (0.1, 0.2, 0.3), "bilinear", 0.9)
    assert origin == "its cfg; ImageNet defaults for interpolation; given: std, crop_pct"
    assert found.identity() == {
        "input_size": 260,
        "mean": [0.5] * 3,
        "std": [0.1, 0.2, 0.3],
        "interpolation": "bilinear",
    }
    assert resolve({}, "", {}) == (
        Preprocessing(**IMAGENET_DEFAULTS),
        "ImageNet defaults for input_size, mean, std, interpolation, crop_pct",
    )


WRONG = [
    ("input_size", 0, "is not a square"),
    ("input_size", (3, 224, 256), "is not a square"),
    ("input_size", (1, 28, 28), "has 1 channels"),
    ("input_size", "224", "is not a square"),
    ("mean", (0.5, 0.5), "is not three numbers"),
    ("mean", 0.5, "is not three numbers"),
    ("mean", (0.5, 0.5, math.nan), "finite"),
    ("std", (0.5, 0.0, 0.5), "above 0"),
    ("interpolation", "lanczos", "is not one of bicubic, bilinear, nearest"),
    ("crop_pct", 0.0, "is not above 0"),
    ("crop_pct", "all", "is not above 0"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_settings_that_cannot_be(name: str, value: Any, message: str) -> None:
    wrong: dict[str, Any] = {name: value}
    kinds: list[tuple[type[SlgWdsError], Any]] = [
        (UsageError, lambda: resolve({}, "its cfg", wrong)),
        (TeacherError, lambda: resolve(wrong, "its cfg", {})),
    ]
    for kind, call in kinds:
        with pytest.raises(kind, match=message) as caught:
            call()
        assert name.replace("_", "-") in str(caught.value)


def photograph(height: int, width: int) -> torch.Tensor:
    from skimage.data import chelsea

    return torch.from_numpy(chelsea()[:height, :width].copy()).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(300, 451), (300, 120), (100, 100)])
@pytest.mark.parametrize(
    ("side", "interpolation", "crop_pct", "crop_mode"),
    [(224, "bicubic", 0.875, "center"), (160, "bilinear", 0.95, "center"), (224, "bicubic", 1.0, "squash")],
)
def test_evaluation_transform_is_timms(
    size: tuple[int, int], side: int, interpolation: str, crop_pct: float, crop_mode: str
) -> None:
    from PIL import Image
    from timm.data import create_transform

    theirs = create_transform(
        (3, side, side),
        interpolation=interpolation,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        mean=0.0,
        std=1.0,
    )
    image = photograph(*size)
    ours = eval_transform(image, Preprocessing(side, (0,) * 3, (1,) * 3, interpolation, crop_pct, crop_mode))
    expected = theirs(Image.fromarray(image.permute(1, 2, 0).numpy())) * 255
    assert ours.dtype == torch.uint8
    assert ours.shape == expected.shape
    assert (ours - expected).abs().max() <= 2.01  # Pillow against torch


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b1", "convnext_base", "vit_l_16"])
def test_evaluation_transform_is_torchvisions(name: str) -> None:
    from torchvision import models

    theirs = models.get_model_weights(name).DEFAULT.transforms()
    config = {"input_size": theirs.crop_size[0], "crop_pct": theirs.crop_size[0] / theirs.resize_size[0]}
    config |= {"interpolation": theirs.interpolation, "mean": theirs.mean, "std": theirs.std}
    wanted, _ = resolve(config, name, {})
    image = photograph(300, 451)
    ours = (eval_transform(image, wanted) / 255 - torch.tensor(wanted.mean).view(3, 1, 1)).div(
        torch.tensor(wanted.std).view(3, 1, 1)
    )
    # One level: its resize goes through float32.
    torch.testing.assert_close(ours, theirs(image), rtol=0, atol=1.001 / 255 / min(wanted.std))
