"""Models of timm and torchvision: by name, with weights of one's own, and the errors if they cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from torchvision import models

from slg_wds.errors import TeacherError, UnknownArchError, WeightsError
from slg_wds.teachers import digest
from support.models.loading import check_same, load, saved
from support.paths import ROOT


def test_timm_resnet18_through_a_weights_file(tmp_path: Path) -> None:
    module = timm.create_model("resnet18")
    teacher = load("resnet18", path=saved(module, tmp_path / "resnet18.pth"))
    check_same(teacher, module)
    assert teacher.num_classes == 1000
    assert teacher.code_digest is None
    assert teacher.describe() == {
        "source": "timm",
        "arch": "resnet18",
        "weights_sha256": digest(module),
        "input_size": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
    }
    assert teacher.provenance() == {
        "crop_pct": 0.95,
        "weights_from": "resnet18.pth [state_dict]",
        "preprocessing_from": "timm's pretrained_cfg of resnet18.a1_in1k",
    }


def test_torchvision_resnet18_through_a_weights_file(tmp_path: Path) -> None:
    module = models.resnet18()
    teacher = load("resnet18", "pytorch", saved(module, tmp_path / "resnet18.safetensors"))
    check_same(teacher, module)
    assert teacher.name == "pytorch:resnet18"
    assert str(teacher.preprocessing) == (
        "224 px, bilinear, mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225), crop_pct 0.875"
    )
    assert teacher.preprocessing_from == "the transforms of torchvision's ResNet18_Weights.IMAGENET1K_V1"


def test_torchvision_weights_by_name_decide_the_preprocessing(tmp_path: Path) -> None:
    path = saved(models.mobilenet_v3_large(), tmp_path / "m.pth")
    default = load("mobilenet_v3_large", "pytorch", path)
    first = load("mobilenet_v3_large.IMAGENET1K_V1", "pytorch", path)
    assert round(224 / default.preprocessing.crop_pct) == 232
    assert round(224 / first.preprocessing.crop_pct) == 256
    # The tag is no part of the identity: the digest says which weights.
    assert default.describe() == first.describe()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("arch", ["squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5"])
def test_torchvision_heads_follow_the_file(tmp_path: Path, arch: str, suffix: str) -> None:
    module = models.get_model(arch, num_classes=12)
    teacher = load(arch, "pytorch", saved(module, tmp_path / f"w{suffix}"))
    assert teacher.num_classes == 12
    check_same(teacher, module)


def test_torchvision_models_with_their_own_normalisation(tmp_path: Path) -> None:
    module = models.googlenet(init_weights=False)
    teacher = load("googlenet", "pytorch", saved(module, tmp_path / "w.pth"))
    module.transform_input = True  # as with its published weights
    check_same(teacher, module)
    assert " with transform_input=True, as torchvision's published weights have it" in str(teacher)
    assert "private:" in str(teacher) and "transform_input" not in str(teacher.describe())
    other = load("squeezenet1_1", "pytorch", saved(models.squeezenet1_1(), tmp_path / "other.pth"))
    assert "transform_input" not in str(other)


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "test_efficientnet.r160_in1k"])
def test_timm_heads_follow_the_file(tmp_path: Path, arch: str) -> None:
    module = timm.create_model(arch, num_classes=7)
    teacher = load(arch, path=saved(module, tmp_path / "w.safetensors"))
    assert (teacher.num_classes, teacher.preprocessing.input_size) == (7, 160)
    check_same(teacher, module)


def test_timm_architectures_of_fixed_size_are_made_for_the_size_asked(tmp_path: Path) -> None:
    module = timm.create_model("test_vit", img_size=96)
    teacher = load("test_vit", path=saved(module, tmp_path / "w.pth"), input_size=96)
    assert teacher.preprocessing.input_size == 96
    check_same(teacher, module)


def test_a_size_that_a_model_does_not_take_is_named_by_its_option(tmp_path: Path) -> None:
    made = "timm.create_model('vit_tiny_patch16_224', depth=1, img_size=64)"
    (tmp_path / "mine.py").write_text(
        f"import timm\ndef factory():\n    return {made}, {{'input_size': 64}}\n"
    )
    with pytest.raises(TeacherError, match=r"64.*; --input-size 96 is not the model's own, 64"):
        load(f"private:{tmp_path / 'mine.py'}:factory", input_size=96)


def test_timm_names_of_old_releases(tmp_path: Path) -> None:
    module = timm.create_model("tf_efficientnet_b0.ns_jft_in1k")
    teacher = load("tf_efficientnet_b0_ns", path=saved(module, tmp_path / "w.pth"))
    assert teacher.describe()["arch"] == "tf_efficientnet_b0"
    assert "ns_jft_in1k" in teacher.preprocessing_from
    check_same(teacher, module)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = saved(timm.create_model("test_resnet"), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"missing \(.*unexpected \("):
        load("test_vit", path=path)
    with pytest.raises(WeightsError, match="so the file is of another architecture"):
        load("alexnet", "pytorch", path)
    with pytest.raises(WeightsError, match="no weights file at"):
        load("test_vit", path=tmp_path / "absent.pth")


@pytest.mark.parametrize(
    ("arch", "source", "message"),
    [
        ("resnet5O", "timm", "timm has no model 'resnet5O'; near names are resnet50"),
        ("resnet5O", "pytorch", "torchvision has no model 'resnet5O'; near names are resnet50"),
        ("resnet18.nope", "timm", "timm has no weights 'nope' for resnet18; known are "),
        ("resnet50.V9", "pytorch", "no weights 'V9' for resnet50; known are IMAGENET1K_V1, IMAGENET1K_V2"),
        ("swin_v2_t", "timm", "pytorch has: -a pytorch:swin_v2_t"),
        ("tf_efficientnet_lite0", "pytorch", "timm has: -a timm:tf_efficientnet_lite0"),
        ("fcn_resnet50", "pytorch", "torchvision has no model 'fcn_resnet50'"),
        ("qqqqqqqq", "timm", "timm has no model 'qqqqqqqq'"),
    ],
)
def test_unknown_architectures(arch: str, source: str, message: str) -> None:
    with pytest.raises(UnknownArchError) as caught:
        load(arch, source)
    assert message in str(caught.value)


def test_no_published_weights() -> None:
    with pytest.raises(
        TeacherError, match=r"timm has no pretrained weights for seresnet18; .*--teacher-path"
    ):
        load("seresnet18")


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    code = """
from slg_wds.errors import TeacherError
from slg_wds.teachers import load_teacher, parse_teachers
for name in ("timm:test_resnet", "pytorch:squeezenet1_1"):
    try:
        load_teacher(parse_teachers(name)[0])
    except TeacherError as error:
        print(error)
"""
    nowhere = "http://127.0.0.1:9"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    environment |= {"http_proxy": nowhere, "https_proxy": nowhere, "HTTPS_PROXY": nowhere}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout + done.stderr
    for line, name in zip(lines, ("timm:test_resnet", "pytorch:squeezenet1_1"), strict=True):
        assert line.startswith(f"the weights of {name} could not be downloaded: ")
        assert line.endswith("; download them where there is a network and give the file by --teacher-path")
