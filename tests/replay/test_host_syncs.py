"""Nothing from a batch to its labels, and from the loader to the loss, waits for the device.

The device is torch's "meta": its tensors have no values, so that whatever needs one on the host raises, as `.item()`,
`if tensor:` or a shape that depends on values do. On a GPU these would wait for it.
"""

from __future__ import annotations

import pytest
import torch

from slg_wds import SoftCrossEntropy
from slg_wds.labels import LabelAdaptation, mix, recover
from slg_wds.labels.adaptation import adapted
from slg_wds.replay.batch import Batch
from support.sets.replay_sets import Made, make

RULES = {
    "tail": ("shared_tail_k5", "marginal_smoothing_k4", "marginal_renorm_k2", "smoothing", "hard"),
    "full": ("full", "marginal_smoothing_k5", "marginal_renorm_k5", "smoothing", "hard"),
    "hard": ("hard",),
}
EVERY = [(kind, rule) for kind, rules in RULES.items() for rule in rules]


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("syncs")
    common = {"embed_images": "original", "num_crops": 8}
    types = {"tail": "shared_tail_k5", "full": "full", "hard": "hard"}
    return {
        name: Made(make(photographs, folder / name, label_type=label_type, **common), None)
        for name, label_type in types.items()
    }


def trained_on(batch: Batch) -> torch.Tensor:
    """Do what a training step does with a batch, mixup and the loss without padding included; return the gradient."""
    logits = torch.zeros(len(batch), batch.labels.num_classes, device="meta", requires_grad=True)
    order = torch.arange(len(batch), device="meta").flip(0)
    mixed = mix([batch.labels, batch.labels[order]], [0.7, 0.3])
    losses = SoftCrossEntropy(reduction="none")(logits, mixed) + SoftCrossEntropy()(
        logits, batch.labels.dense()
    )
    (losses * batch.mask).sum().backward()
    return logits.grad


@pytest.mark.parametrize(("kind", "rule"), EVERY)
def test_from_the_loader_to_the_loss(sets, kind, rule):
    batches = list(
        sets[kind].loader(rule=rule, last="pad", global_batch_size=28).to("meta", dtype=torch.bfloat16)
    )
    assert len(batches) == 3
    for batch in batches:
        assert {tensor.device.type for tensor in batch.tensors()} == {"meta"}
        assert batch.images.shape == (28, 3, 32, 32) and batch.images.dtype == torch.bfloat16
        assert trained_on(batch).shape == (28, batch.labels.num_classes)


@pytest.mark.parametrize(("kind", "rule"), EVERY)
def test_from_stored_columns_to_labels(sets, kind, rule):
    batch = next(iter(sets[kind].loader(rule=rule))).to("meta")
    classes = batch.labels.num_classes
    index = None if kind == "full" else batch.index
    tail = batch.tail if rule.startswith("shared_tail") else None
    assert recover(index, batch.value, classes, rule=rule, tail=tail).shape == (len(batch), classes)
    by = LabelAdaptation(0.5)
    assert adapted(batch.labels, batch.target, batch.value.amax(dim=1), by).dense().device.type == "meta"


@pytest.mark.parametrize(
    "waiting",
    [
        lambda tensor: tensor.sum().item(),
        lambda tensor: bool((tensor > 0).any()),
        lambda tensor: tensor[tensor > 0],
        lambda tensor: tensor.nonzero(),
        lambda tensor: tensor.cpu(),
    ],
)
def test_what_would_wait_raises_here(waiting):
    with pytest.raises((RuntimeError, NotImplementedError)):
        waiting(torch.zeros(3, device="meta"))
