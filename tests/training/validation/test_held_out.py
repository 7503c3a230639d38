"""KL to the teacher on held-out labels: of a student that learned exactly what it was taught, it is 0."""

from __future__ import annotations

import re

import pytest
import torch

from slg_wds.training.command import main
from support.models.names import TINY
from support.sets.replay_sets import make
from support.training import common


@pytest.fixture(scope="module")
def taught(photographs, tmp_path_factory) -> str:
    return make(photographs, tmp_path_factory.mktemp("taught") / "set", num_crops=2, temp=4.0)


@pytest.fixture(scope="module")
def held_out(photographs, tmp_path_factory) -> str:
    return make(photographs, tmp_path_factory.mktemp("held") / "set", num_crops=1, label_type="full")


def divergence(said: str) -> float:
    return float(re.search(r"KL to the teacher ([\d.]+),", said)[1])


def validated(capsys, *words: str) -> float:
    assert main(list(words)) == 0
    return divergence(capsys.readouterr().out)


@pytest.mark.parametrize("more", [(), ("--label-temp", "2", "--label-temp-end", "4")])
def test_it_is_taken_at_what_the_student_learned(taught, held_out, photographs, tmp_path, capsys, more):
    """The student is the teacher, and learns its labels of temperature 4 with its logits divided by 4."""
    held = ["--val-softlabels", held_out, "--val-images", str(photographs)]
    once = ["-a", TINY, "--temp", "4", "--lr", "0", "--epochs", "1", "--num_crops", "1", *more, *held]
    words = [*common(taught), *once, "--save_checkpoint_path", str(tmp_path), str(photographs)]
    assert validated(capsys, *words) < 5e-4
    path = tmp_path / "checkpoint.pth.tar"
    again = ["-a", TINY, "-e", "-j", "1", *held, "--resume", str(path)]
    assert validated(capsys, *again) < 5e-4
    found = torch.load(path, weights_only=True)
    del found["logit_scale"]
    torch.save(found, path)
    assert validated(capsys, *again, "--temp", "4", "--label-temp", "4") < 5e-4
    assert main([*again, "--temp", "4"]) == 0
    said = capsys.readouterr().out
    assert (
        "nothing says at which temperature the student learns its labels" in said and divergence(said) > 0.01
    )
