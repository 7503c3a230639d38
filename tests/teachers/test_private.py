"""Teachers that a function of the user returns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from slg_wds.errors import TeacherError
from slg_wds.teachers import Teacher
from support.models.loading import load


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
