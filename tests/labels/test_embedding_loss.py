"""The losses of embeddings, against their formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import slg_wds
from slg_wds.errors import UsageError

B, D = 5, 7


def rows(seed: int, width: int = D, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(B, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def cosine_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 1 - (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def smooth_l1(a: np.ndarray, b: np.ndarray, beta: float) -> np.ndarray:
    apart = np.abs(a - b)
    return np.where(apart < beta, apart**2 / (2 * beta), apart - beta / 2).mean(1)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_embedding_loss_is_its_formula(beta):
    a, b = rows(1), rows(2)
    loss = slg_wds.EmbeddingLoss(cosine=0.9, smooth_l1=0.1, beta=beta, reduction="none")
    expected = 0.9 * cosine_distance(a.numpy(), b.numpy()) + 0.1 * smooth_l1(a.numpy(), b.numpy(), beta)
    assert np.allclose(loss(a, b).numpy(), expected, rtol=1e-12)
    assert float(slg_wds.EmbeddingLoss()(a, b)) == pytest.approx(cosine_distance(a.numpy(), b.numpy()).mean())
    assert float(slg_wds.EmbeddingLoss()(3 * b, b)) == pytest.approx(0, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: loss(x, b), rows(3).requires_grad_())


def test_zero_vectors_are_alike_and_unlike_all_others():
    a, b = rows(1), rows(2)
    a[0] = b[0] = a[1] = 0
    a.requires_grad_()
    losses = slg_wds.EmbeddingLoss(reduction="none")(a, b)
    assert losses[:2].tolist() == [0.0, 1.0]
    losses.sum().backward()
    assert torch.isfinite(a.grad).all()


def test_relation_loss_is_its_formula_for_any_widths():
    a, b = rows(1, 3), rows(2)

    def unit(q):
        g = q @ q.T
        return g / np.linalg.norm(g, axis=1, keepdims=True)

    expected = np.square(unit(a.numpy()) - unit(b.numpy())).sum() / B**2
    assert float(slg_wds.RelationLoss()(a, b)) == pytest.approx(expected, rel=1e-12)
    turn, _ = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64))
    assert float(slg_wds.RelationLoss()(b @ turn * 2, b)) == pytest.approx(0, abs=1e-20)  # only angles count
    assert torch.autograd.gradcheck(lambda x: slg_wds.RelationLoss()(x, b), rows(3, 3).requires_grad_())


def test_halves_are_computed_in_float32():
    a, b = rows(1, dtype=torch.bfloat16), rows(2, dtype=torch.float32)
    for loss in (slg_wds.EmbeddingLoss(smooth_l1=1.0), slg_wds.RelationLoss()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(a, b)
        assert found.dtype == torch.float32 and torch.equal(found, loss(a.float(), b))


def test_a_student_with_a_projector_learns_the_embeddings():
    torch.manual_seed(0)
    inputs, teacher = torch.randn(64, 6), nn.Linear(6, D)
    student = nn.Linear(6, 9)
    loss = slg_wds.EmbeddingLoss(nn.Linear(9, D))
    wanted = teacher(inputs).detach()
    optimizer = torch.optim.Adam([*student.parameters(), *loss.parameters()], lr=0.02)
    first = loss(student(inputs), wanted).item()
    for _ in range(200):
        optimizer.zero_grad()
        loss(student(inputs), wanted).backward()
        optimizer.step()
    assert loss(student(inputs), wanted).item() < 0.02 < first


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match=r"\[5, 3\] for embeddings of shape \[5, 7\]; give a projector"):
        slg_wds.EmbeddingLoss()(rows(1, 3), rows(2))
    with pytest.raises(UsageError, match="for the same crops"):
        slg_wds.RelationLoss()(rows(1)[:3], rows(2))
    for wrong in ({"cosine": -1.0}, {"cosine": 0.0}, {"beta": 0.0}, {"reduction": "sum"}):
        with pytest.raises(UsageError):
            slg_wds.EmbeddingLoss(**wrong)
