"""A student that does not take its images, or gives no logits, is refused before the first step, in one line."""

from __future__ import annotations

import pytest

from slg_wds.training.command import main
from support.training import common

FACTORIES = """
import threading

import timm
import torch
from torch import nn


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = timm.create_model("test_resnet", num_classes=20)

    def forward(self, images):
        return {"logits": self.inner(images)}


def ten():
    return timm.create_model("test_resnet", num_classes=10)


def unpooled():
    return timm.create_model("test_resnet", num_classes=0, global_pool="")


class Threaded(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = timm.create_model("test_resnet", num_classes=20)

    def forward(self, images):
        threading.stack_size(1 << 47)  # no memory is so large, so the thread cannot be started
        try:
            threading.Thread(target=int).start()
        finally:
            threading.stack_size(0)
        return self.inner(images)


def threaded():
    return Threaded()


def grey():
    return timm.create_model("test_resnet", num_classes=20, in_chans=1)
"""


@pytest.fixture
def refused(labels, photographs, tmp_path, capsys, monkeypatch):
    """A function: flags -> the one line with which the run ends before it made a folder."""
    (tmp_path / "mine.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> str:
        words = [str(photographs), *common(labels), *flags, "--save_checkpoint_path", "out"]
        assert main(words) in (1, 2) and not (tmp_path / "out").exists()
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    return run


@pytest.mark.parametrize(
    ("arch", "size"),
    [("test_vit", "1"), ("levit_128s", "192"), ("convnext_atto", "10")],
)
def test_a_size_that_a_model_does_not_take(refused, arch, size):
    """Positions that cannot be resized, a model of one size, maps that get too small."""
    line = refused("-a", arch, "--size", size)
    assert f"the student {arch} does not take images of {size} x {size} pixels: RuntimeError: " in line
    assert line.endswith("; leave out --size, or give what it takes")


def test_a_size_that_no_model_takes(refused):
    assert "--size 20000 is not inside 1..16384" in refused("-a", "test_resnet", "--size", "20000")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-a", "mine.py:ten"), r"the student mine.py:ten gives [2, 10] for 2 images, not logits [2, 20]"),
        (("-a", "mine.py:Wrapped"), "the student mine.py:Wrapped gives dict for 2 images, not logits"),
        (("-a", "mine.py:unpooled"), "gives [2, 96, 5, 5] for 2 images, not logits [2, 20]"),
        (("-a", "mine.py:grey"), "the student mine.py:grey does not take images of 160 x 160 pixels"),
        (("-a", "test_resnet", "--model-kwargs", "in_chans=1"), "leave out --model-kwargs, or give what"),
        (("-a", "test_resnet.other"), "timm has no weights 'other' for test_resnet; known are r160_in1k"),
        (("-a", "local-dir:nowhere"), "nowhere could not be downloaded: FileNotFoundError"),
    ],
)
def test_a_student_that_is_of_no_use(refused, flags, text):
    assert text in refused(*flags)


def test_threads_that_cannot_be_started_are_no_fault_of_the_images(refused):
    line = refused("-a", "mine.py:threaded")
    assert "no more threads can be started here" in line and "ulimit -u" in line
    assert "does not take images" not in line
