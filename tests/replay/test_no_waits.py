"""From the loader to the loss on an imitated GPU: the host waits for nothing, and the loss is the CPU's."""

from __future__ import annotations

import pytest
import torch

from slg_wds.labels import SoftCrossEntropy, mix
from support.gpus.lazy_streams import DEVICE, LazyStreams
from support.sets.replay_sets import Made, make

RULES = {
    "shared_tail_k5": ("shared_tail_k5", "marginal_smoothing_k4", "marginal_renorm_k2", "smoothing", "hard"),
    "full": ("full", "marginal_smoothing_k5", "hard"),
    "hard": ("hard",),
    "lowrank": ("lowrank", "marginal_smoothing_k5"),
}
CLASSES = 20


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("no_waits")
    common = {"embed_images": "original", "num_crops": 4}
    return {kind: Made(make(photographs, folder / kind, label_type=kind, **common), None) for kind in RULES}


def losses(loader) -> list[torch.Tensor]:
    """The loss of a linear student of each batch, whose labels are mixed with its own reversed, and the gradient."""
    torch.manual_seed(0)
    student = torch.nn.Linear(3, CLASSES)
    found = []
    for batch in loader:
        labels = mix([batch.labels, batch.labels[torch.arange(len(batch) - 1, -1, -1)]], [0.7, 0.3])
        loss = SoftCrossEntropy()(student(batch.images.mean((2, 3))), labels)
        (gradient,) = torch.autograd.grad(loss, [student.weight])
        found += [loss.detach(), gradient]
    return found


@pytest.mark.parametrize(("kind", "rule"), [(kind, rule) for kind, rules in RULES.items() for rule in rules])
def test_nothing_waits_from_the_loader_to_the_loss(sets, monkeypatch, kind, rule):
    expected = losses(sets[kind].loader(rule=rule).to("cpu"))
    assert len(expected) >= 4
    gpu = LazyStreams().install(monkeypatch)
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    loader = sets[kind].loader(rule=rule).to("cpu")
    loader.loader.pin_memory()
    loader._cuda, loader.device = True, DEVICE
    with gpu:
        found = losses(loader)
    assert gpu.operators > 20 and gpu.dropped == 0
    gpu.wait()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
