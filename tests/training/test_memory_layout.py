"""--channels-last and --no-channels-last hold for weights and activations, in training and in every validation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from slg_wds.training.flags import parse
from slg_wds.training.student import make_average, make_distiller, make_student
from support.sets.replay_sets import write_class_map
from support.training import PLAIN, STUDENTS, train

LAYOUTS = {"--channels-last": torch.channels_last, "--no-channels-last": torch.contiguous_format}


@pytest.fixture
def seen(monkeypatch) -> list[tuple[bool, list[bool]]]:
    """Of each call of a convolution: whether it trains, and for its weights, input and output whether they are
    channels_last, and whether they are contiguous.
    """
    found = []
    plain = nn.Conv2d.forward

    def forward(module, images):
        out = plain(module, images)
        parts = (module.weight, images, out)
        layouts = [
            [part.is_contiguous(memory_format=layout) for part in parts] for layout in LAYOUTS.values()
        ]
        found.append((module.training, *layouts))
        return out

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    return found


def expected(flag: str) -> list[list[bool]]:
    return [[flag == "--channels-last"] * 3, [flag == "--no-channels-last"] * 3]


@pytest.mark.parametrize("flag", LAYOUTS)
def test_training_and_validations_compute_in_the_layout(labels, photographs, tmp_path, seen, flag):
    data = tmp_path / "data"
    data.mkdir()
    for name in ("train", "val"):
        (data / name).symlink_to(photographs / "train")
    held_out = ["--val-softlabels", labels, "--val-images", str(data / "train")]
    more = ["-a", PLAIN, "--epochs", "1", "--num_crops", "1", "--ema", "0.5", "--mixup_cutmix", *held_out]
    train(
        tmp_path / "out",
        labels,
        data,
        *more,
        "--class-map",
        write_class_map(photographs, tmp_path / "map"),
        flag,
    )
    trials, steps, batches = 1, 2, 3
    assert [training for training, *_ in seen] == [False] * trials + [True] * steps + [
        False
    ] * 2 * 2 * batches
    assert all(layouts == expected(flag) for _, *layouts in seen)


@pytest.mark.parametrize("flag", LAYOUTS)
@pytest.mark.parametrize("given", LAYOUTS.values())
def test_a_student_of_embeddings_and_an_average_keep_the_layout(seen, flag, given):
    """k-NN calls the student below its projectors."""
    args = parse(["-a", f"{STUDENTS}:features", "--distill", "embedding", flag])
    backbone, preprocessing = make_student(args, 0, {})
    student = make_distiller(args, backbone, {"tiny": 20}, preprocessing.input_size)
    seen.clear()
    images = torch.rand(4, 3, 32, 32).contiguous(memory_format=given)
    for model in (student, student.backbone, make_average(student, 0.5).module):
        model(images)
    assert len(seen) == 3 and all(layouts == expected(flag) for _, *layouts in seen)
