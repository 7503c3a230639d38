"""The compiled loop of cutting and the same loop as Python give the same bits; without TorchScript Python runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from slg_wds.transforms import crops
from slg_wds.transforms.cutting import KERNELS, cut_image, scripted, scripted_cut


def cut_by(cut, interpolation: str, count: int = 12) -> torch.Tensor:
    rng = np.random.default_rng(4)
    image = torch.from_numpy(rng.integers(0, 256, (70, 95, 3), dtype=np.uint8)).permute(2, 0, 1)
    boxes, flips = crops.sample_crops(2, "x", (70, 95), count, crops.CropRule())
    assert flips.any() and not flips.all()
    out = torch.zeros((count, 3, 24, 24), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    cut(image.unsqueeze(0), boxes.tolist(), flips.tolist(), out, KERNELS[interpolation])
    return out


def test_every_interpolation_has_a_kernel():
    assert set(KERNELS) == set(crops.INTERPOLATIONS)


@pytest.mark.parametrize("interpolation", KERNELS)
def test_the_compiled_loop_is_the_python_loop(interpolation):
    assert isinstance(scripted_cut, torch.jit.ScriptFunction), "crops are cut without the interpreter"
    assert torch.equal(cut_by(scripted_cut, interpolation), cut_by(cut_image, interpolation))


def test_without_torchscript_python_cuts(monkeypatch):
    def gone(function):
        raise AttributeError("module 'torch.jit' has no attribute 'script'")

    monkeypatch.setattr(torch.jit, "script", gone)
    assert scripted(cut_image) is cut_image


def test_crops_are_cut_in_one_call(monkeypatch):
    """However many they are: otherwise each would wait for the interpreter several times."""
    calls = []
    monkeypatch.setattr("slg_wds.transforms.cutting.scripted_cut", lambda *given: calls.append(given))
    image, out = torch.zeros(3, 40, 50, dtype=torch.uint8), torch.zeros(9, 3, 8, 8, dtype=torch.uint8)
    boxes, flips = crops.sample_crops(0, "x", (40, 50), 9, crops.CropRule())
    crops.cut(image, boxes, flips, out)
    ((pixels, sent_boxes, sent_flips, target, kernel),) = calls
    assert pixels.shape == (1, 3, 40, 50) and target is out and kernel == KERNELS["bicubic"]
    assert sent_boxes == boxes.tolist() and sent_flips == flips.tolist()
