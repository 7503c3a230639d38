"""Teachers made of a module: what they take and give, ensembles of them, and those that misbehave."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from slg_wds.errors import MemoryFullError, TeacherError, TeacherOutputError, UsageError
from slg_wds.teachers import Accuracy, Ensemble, Preprocessing, Teacher, evaluate
from support.models.built import teacher_of


class Lookup(nn.Module):
    """Logits that are a function of the first pixel: a row of a table."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(rows))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x[:, 0, 0, 0].round().long()]


def made(module: nn.Module, side: int = 4, **settings: Any) -> Teacher:
    """A teacher whose input is the pixels themselves, 0..255."""
    plain = Preprocessing(side, (0, 0, 0), (1 / 255,) * 3, "bilinear", 1.0)
    return teacher_of(module, plain, **settings)


def pixels_of(values: Sequence[int], side: int = 4) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()


def test_pixels_are_normalised_to_the_bit() -> None:
    from PIL import Image
    from torchvision import transforms

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = Preprocessing(16, mean, std, "bilinear", 0.875)
    teacher = teacher_of(nn.Flatten(), wanted)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16)
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    expected = prepare(Image.fromarray(levels.permute(1, 2, 0).numpy()))
    assert torch.equal(teacher.logits(levels[None]).view(3, 16, 16), expected)


def test_accuracy_is_counted() -> None:
    rows = [[5.0, 4, 3, 2, 1, 0, -1], [0.0] * 7, [0.0, 0, 0, 0, 0, 0, 9]]
    teacher = made(Lookup(rows))
    batches = [
        ([pixels_of([0, 0, 0])], [0, 4, 5]),  # first, fifth, sixth
        ([pixels_of([1, 1])], [0, 6]),  # ties go to the lower class: first, seventh
        ([pixels_of([])], []),
        ([pixels_of([2])], [6]),
    ]
    found = evaluate(teacher, batches)
    losses = [-math.log(math.exp(5 - t) / sum(math.exp(v) for v in rows[0])) for t in (0, 4, 5)]
    losses += [math.log(7)] * 2 + [math.log(1 + 6 * math.exp(-9))]
    assert found == Accuracy(3 / 6, 4 / 6, pytest.approx(sum(losses) / 6, rel=1e-5), 6)
    for wrong in ([7], [-1]):
        with pytest.raises(UsageError, match=r"targets must be class numbers in 0\.\.6"):
            evaluate(teacher, [([pixels_of([0])], wrong)])
    with pytest.raises(UsageError, match="2 targets for 1 image"):
        evaluate(teacher, [([pixels_of([0])], [1, 2])])
    with pytest.raises(UsageError, match="no image to evaluate on"):
        evaluate(teacher, [])
    with pytest.raises(TeacherError, match="2 batches for 1 preprocessings"):
        evaluate(teacher, [([pixels_of([0])] * 2, [0])])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_spoil_their_row_and_no_other(bad: float) -> None:
    rows = [[0.0, 1, 2], [0.0, bad, 2], [0.0, 1, 2]]
    broken, whole = made(Lookup(rows)), made(Lookup([rows[0]] * 3))
    for ensemble in (
        Ensemble([broken]),
        Ensemble([whole, broken], [9, 1]),
        Ensemble([broken], class_subset=[0, 2]),
    ):
        probs = ensemble.probabilities([pixels_of([0, 1, 2])])
        assert probs.isfinite().all(1).tolist() == [True, False, True]
        assert not probs[1].isfinite().any()
    with pytest.raises(TeacherOutputError, match="private:test gave NaN or infinity"):
        evaluate(broken, [([pixels_of([1])], [0])])
    with pytest.raises(TeacherOutputError, match="not finite for black images at fp32"):
        made(Lookup([rows[1]]))


class Reshape(nn.Module):
    def __init__(self, shape: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> Any:
        return self.shape(x)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (lambda x: x[:, :, :1, :1], "returns [2, 3, 1, 1] for 2 images, not [2, classes]"),
        (lambda x: x.mean((1, 2, 3)), "returns [2] for 2 images"),
        (lambda x: x.mean((0, 2, 3))[None], "returns [1, 3] for 2 images"),
        (lambda x: x.flatten(1)[:, :0], "returns [2, 0] for 2 images"),
        (lambda x: (x, x), "returns tuple, not a tensor"),
        (lambda x: {"scores": x, "loss": 0}, "returns dict of scores, loss, not a tensor [N, classes]"),
        (lambda x: {"scores": x}, "return the logits alone, or an object that has them as `.logits`"),
        (lambda x: {"logits": x}, "returns [2, 3, 4, 4] for 2 images, not [2, classes]"),
    ],
)
def test_outputs_that_are_not_classes(shape: Callable[[torch.Tensor], Any], message: str) -> None:
    with pytest.raises(TeacherOutputError) as caught:
        made(Reshape(shape))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "wrapped",
    [lambda x: {"loss": None, "logits": x}, lambda x: SimpleNamespace(logits=x, hidden_states=(x,))],
)
def test_logits_are_taken_out_of_what_hugging_faces_classifiers_return(
    wrapped: Callable[[torch.Tensor], Any],
) -> None:
    teacher = made(Reshape(lambda x: wrapped(x.flatten(1))))
    assert teacher.num_classes == 48
    assert torch.equal(teacher.logits(pixels_of([1, 2])), made(nn.Flatten()).logits(pixels_of([1, 2])))


def test_a_forward_that_fails_is_one_line() -> None:
    with pytest.raises(
        TeacherError, match=r"failed on uint8 \[2, 3, 4, 4\] at fp32: RuntimeError: "
    ) as caught:
        made(nn.Sequential(nn.Flatten(), nn.Linear(5, 2)))
    assert "\n" not in str(caught.value)

    def full(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return x.flatten(1)

    with pytest.raises(MemoryFullError, match=r"CUDA out of memory") as caught:
        made(Reshape(full)).logits(pixels_of([1, 2, 3]))
    assert caught.value.hint is None  # only a command knows its options


def test_models_that_view_their_activations_work() -> None:
    convolution = nn.Conv2d(3, 2, 1)
    teacher = made(nn.Sequential(convolution, Reshape(lambda x: x.view(len(x), -1))))
    assert teacher.num_classes == 32
    pixels = torch.randint(0, 256, (3, 3, 4, 4), dtype=torch.uint8)
    expected = convolution(pixels.float()).flatten(1)
    torch.testing.assert_close(teacher.logits(pixels), expected, rtol=1e-4, atol=1e-3)


def test_what_a_teacher_takes() -> None:
    teacher = made(Lookup([[0.0, 1]]))
    for wrong in (pixels_of([0]).float(), pixels_of([0], 5), pixels_of([0])[0]):
        with pytest.raises(TeacherError, match=r"takes uint8 \[N,3,4,4\], not torch\."):
            teacher.logits(wrong)


def test_teachers_are_frozen_and_in_evaluation() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(48, 3)).half().train()
    teacher = made(module)
    pixels = pixels_of([1, 2])
    assert torch.equal(teacher.logits(pixels), teacher.logits(pixels))
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not teacher.logits(pixels).requires_grad


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [1, 2]}, "2 weights for 1 teacher"),
        ({"weights": [0]}, "all zero"),
        ({"weights": [math.nan]}, "finite"),
        ({"temperature": 0.0}, "temperature 0.0 is not above 0"),
        ({"temperature": math.inf}, "temperature inf"),
        ({"class_subset": []}, "not empty"),
        ({"class_subset": [0.5]}, "list of class numbers"),
        ({"class_subset": [0, 3]}, "class 3 of the class subset is not one of the teacher's 3"),
        ({"class_subset": [-1]}, "class -1 of the class subset"),
        ({"class_subset": [1, 1]}, "a class is in the class subset twice"),
    ],
)
def test_ensembles_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Ensemble([made(Lookup([[0.0, 1, 2]]))], **settings)
    assert message in str(caught.value)


def test_teachers_of_different_classes_are_no_ensemble() -> None:
    with pytest.raises(
        TeacherError, match="must have the same classes: private:test has 2, private:test has 3"
    ):
        Ensemble([made(Lookup([[0.0, 1]])), made(Lookup([[0.0, 1, 2]]))])
    with pytest.raises(UsageError, match="no teacher"):
        Ensemble([])
