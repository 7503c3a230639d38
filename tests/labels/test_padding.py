"""Rows of padding: no loss counts them, and the host is not asked how many there are."""

from __future__ import annotations

import pytest
import torch

from slg_wds import EmbeddingLoss, RelationLoss, SoftCrossEntropy
from slg_wds.errors import UsageError
from slg_wds.labels import LabelAdaptation, SoftLabels, from_topk, mix
from slg_wds.labels.adaptation import adapted

B, C = 6, 9
MASK = torch.tensor([True, False, True, True, False, True])


def rows(seed: int) -> torch.Tensor:
    return torch.randn(B, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels_of(mask: torch.Tensor | None = MASK) -> SoftLabels:
    labels = from_topk(None, rows(1).softmax(1), C, rule="marginal_smoothing_k3", dtype=torch.float64)
    labels.mask = mask
    return labels


LOSSES = {
    "sparse": lambda reduction, z, mask: SoftCrossEntropy(2.0, reduction, t_squared=True)(z, labels_of(mask)),
    "given": lambda reduction, z, mask: SoftCrossEntropy(2.0, reduction)(z, labels_of(None), mask=mask),
    "dense": lambda reduction, z, mask: SoftCrossEntropy(2.0, reduction)(z, labels_of().dense(), mask=mask),
    "embedding": lambda reduction, z, mask: EmbeddingLoss(smooth_l1=0.1, reduction=reduction)(
        z, rows(2), mask=mask
    ),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_mean_is_that_of_the_other_rows(loss):
    z = rows(3).requires_grad_()
    each = loss("none", z, None)
    wanted = each[MASK].mean()
    (expected,) = torch.autograd.grad(wanted, z)
    found = loss("mean", z, MASK)
    (gradient,) = torch.autograd.grad(found, z)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=1e-17)
    assert not gradient[~MASK].any() and gradient[MASK].any(dim=1).all()
    assert torch.equal(loss("none", z, MASK), each * MASK)
    assert torch.equal(loss("mean", z, None), each.mean())


@pytest.mark.parametrize("loss", [*LOSSES.values(), None], ids=[*LOSSES, "relation"])
def test_a_process_with_padding_alone_gets_no_loss_and_no_gradient(loss):
    z, nothing = rows(3).requires_grad_(), torch.zeros(B, dtype=torch.bool)
    value = RelationLoss()(z, rows(2), mask=nothing) if loss is None else loss("mean", z, nothing)
    (gradient,) = torch.autograd.grad(value, z)
    assert value == 0 and not gradient.any()


def test_relations_are_those_of_the_other_rows():
    z, other = rows(3).requires_grad_(), rows(2)
    wanted, found = RelationLoss()(z[MASK], other[MASK]), RelationLoss()(z, other, mask=MASK)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=0)
    (gradient,), (expected,) = torch.autograd.grad(found, z), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient, expected, rtol=1e-13, atol=1e-17)


def test_what_is_made_of_labels_knows_the_padding():
    labels, back = labels_of(), torch.arange(B - 1, -1, -1)
    assert torch.equal(labels[back].mask, MASK.flip(0)) and torch.equal(labels[1:3].mask, MASK[1:3])
    assert torch.equal(labels.expanded().mask, MASK) and labels.to("meta").mask.is_meta
    assert torch.equal(mix([labels, labels[back]], [0.7, 0.3]).mask, MASK & MASK.flip(0))
    assert torch.equal(mix([labels_of(None), labels]).mask, MASK) and mix([labels_of(None)] * 2).mask is None
    targets, sure = torch.zeros(B, dtype=torch.int64), torch.zeros(B)
    assert torch.equal(adapted(labels, targets, sure, LabelAdaptation(0.5)).mask, MASK)
    part = torch.tensor([True, True, True, True, True, False])
    assert torch.equal(
        SoftCrossEntropy()(rows(3), labels, mask=part), SoftCrossEntropy()(rows(3), labels_of(part & MASK))
    )


@pytest.mark.parametrize("mask", [MASK.float(), MASK[:3], MASK[:, None]])
def test_another_mask_is_refused(mask):
    for loss in (SoftCrossEntropy(), EmbeddingLoss(), RelationLoss()):
        with pytest.raises(UsageError, match=r"for 6 rows; give batch\.mask, bool \[6\]"):
            loss(rows(3), rows(2), mask=mask)


def test_compiled_it_is_one_graph():
    loss = SoftCrossEntropy()
    compiled = torch.compile(lambda z, labels: loss(z, labels), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(rows(3), labels_of()), loss(rows(3), labels_of()))
