"""Loading models from timm, torchvision and private factories, and the errors if that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from slg_wds.errors import SlgWdsError, TeacherError, UnknownArchError, UsageError, WeightsError
from slg_wds.teachers import Teacher, TeacherSpec, digest, load_teacher, parse_teachers
from support.paths import ROOT


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


FACTORIES = """
import helper
import torch
from torch import nn

def plain():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, helper.WIDTH))

def with_settings():
    return plain(), {"input_size": 32, "mean": (0.1, 0.2, 0.3), "interpolation": "nearest"}

def with_attribute():
    model = plain()
    model.default_cfg = {"input_size": (3, 48, 48), "crop_pct": 1.0}
    return model

def lazy():
    import other_helper
    return plain()

def raises():
    raise ValueError("first line\\nsecond line")

def exits():
    raise SystemExit(3)

def number():
    return 5

def bad_settings():
    return plain(), {"std": (0, 1, 1)}

def odd_settings():
    return plain(), 224

constant = 3
"""


@pytest.fixture
def private_file(tmp_path: Path) -> Path:
    folder = tmp_path / "teachers"
    folder.mkdir()
    (folder / "mine.py").write_text(FACTORIES)
    (folder / "helper.py").write_text("WIDTH = 6\n")
    (folder / "other_helper.py").write_text("")
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "hungry.py").write_text("import a_package_that_is_not_here\n")
    return folder / "mine.py"


def test_a_private_factory_in_a_file(private_file: Path) -> None:
    before = list(sys.path)
    teacher = load(f"{private_file}:plain", "private")
    assert teacher.num_classes == 6
    assert teacher.describe()["arch"] == "mine.py:plain"  # whatever folder it lies in
    assert teacher.preprocessing_from == (
        "ImageNet defaults for input_size, mean, std, interpolation, crop_pct"
    )
    load(f"{private_file}:lazy", "private")
    assert sys.path == before


def test_private_settings(private_file: Path) -> None:
    returned = load(f"private:{private_file}:with_settings", std=(1, 1, 2))
    assert (
        str(returned.preprocessing) == "32 px, nearest, mean (0.1, 0.2, 0.3), std (1, 1, 2), crop_pct 0.875"
    )
    assert returned.preprocessing_from == (
        "what the factory returned; ImageNet defaults for crop_pct; given: std"
    )
    attribute = load(f"private:{private_file}:with_attribute")
    assert attribute.preprocessing.input_size == 48
    assert attribute.preprocessing_from == (
        "the module's default_cfg; ImageNet defaults for mean, std, interpolation"
    )


def test_a_private_factory_in_a_package(private_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(private_file.parent)
    teacher = load("mine:plain", "private")
    assert teacher.describe()["arch"] == "mine:plain"
    assert load("torchvision.models:squeezenet1_1", "private").num_classes == 1000


MODEL_BESIDE = """
import torch
from torch import nn
class Net(nn.Module):
    default_cfg = {"input_size": 4, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.arange(5.0) + BIAS)
    def forward(self, x):
        return x.mean((1, 2, 3))[:, None] + self.bias
"""


def test_files_of_one_name_beside_two_teachers_are_two_modules(tmp_path: Path) -> None:
    """A teacher never gets the network that lies beside another one."""

    def made(folder: str, bias: int) -> Teacher:
        package = tmp_path / folder / "models_beside"
        package.mkdir(parents=True, exist_ok=True)
        (package / "net.py").write_text(MODEL_BESIDE.replace("BIAS", str(bias)))
        file = tmp_path / folder / "mine.py"
        file.write_text("from models_beside.net import Net\ndef factory(): return Net()\n")
        return load(f"private:{file}:factory")

    one, other = made("one", 1), made("other", 2)
    assert one.weights_digest != other.weights_digest
    black = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert torch.allclose(other.logits(black) - one.logits(black), torch.ones(1, 5))
    assert made("one", 1).describe() == one.describe() and made("other", 2).describe() == other.describe()


def test_a_private_teacher_with_a_weights_file(private_file: Path, tmp_path: Path) -> None:
    state = load(f"private:{private_file}:plain")
    weights = {"2.weight": torch.ones(6, 3), "2.bias": torch.arange(6.0)}
    torch.save({"model": weights}, tmp_path / "w.pth")
    teacher = load(f"private:{private_file}:plain", path=tmp_path / "w.pth", mean=(0, 0, 0), std=(1, 1, 1))
    assert teacher.weights_digest != state.weights_digest
    black = torch.zeros(1, 3, 224, 224, dtype=torch.uint8)
    assert teacher.logits(black).tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("absent.py:f", "no file "),
        ("broken.py:f", "SyntaxError"),
        ("hungry.py:f", "ModuleNotFoundError: No module named 'a_package_that_is_not_here'"),
        ("mine.py:plane", "has no function plane; near names are plain"),
        ("mine.py:constant", "has no function constant"),
        ("mine.py:raises", "the factory raised ValueError: first line"),
        ("mine.py:exits", "the factory raised SystemExit: 3"),
        ("mine.py:number", "the factory returned int; it must return a torch.nn.Module"),
        ("mine.py:bad_settings", "std (0, 1, 1) must be above 0; give --std yourself"),
        ("mine.py:odd_settings", "the preprocessing returned is int, not a dict"),
    ],
)
def test_private_teachers_that_cannot_be(private_file: Path, target: str, message: str) -> None:
    with pytest.raises(TeacherError) as caught:
        load(f"private:{private_file.parent}/{target}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_modules_that_are_not_there() -> None:
    with pytest.raises(TeacherError, match=r"importing not_a_package\.teachers failed, ModuleNotFoundError"):
        load("not_a_package.teachers:make", "private")


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
