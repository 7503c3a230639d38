"""Low-rank labels in torch, which stay small until the loss takes them, against dense rows in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slg_wds.format.records.low_rank.blocks import LowRank, joined
from slg_wds.format.records.low_rank.rows import LowRankRows
from slg_wds.format.recovery.label_types import parse_label_type
from slg_wds.labels import LabelAdaptation, SoftCrossEntropy, SoftLabels, from_tables, from_topk, mix
from slg_wds.labels.adaptation import adapted
from slg_wds.labels.logit_tables import LogitTables, logit_tables
from support.oracles.logit_tables_oracle import made_image, oracle


def tables_of(images: list[LowRank], power: float = 1.0) -> LogitTables:
    return logit_tables(LowRankRows.of(joined(images)), power)


def small(labels: LogitTables) -> SoftLabels:
    """The labels as tables, whatever is larger."""
    empty = torch.zeros((len(labels), 0))
    return SoftLabels(empty.long(), empty, None, labels.num_classes, (labels,))


@st.composite
def some_images(draw: st.DrawFn) -> list[LowRank]:
    classes = draw(st.integers(1, 30))
    return [
        made_image(
            draw(st.integers(0, 2**32)),
            draw(st.integers(1, 6)),
            classes,
            draw(st.integers(0, classes)),
            draw(st.integers(0, 5)),
            draw(st.integers(1, 3)),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]


@settings(max_examples=120, deadline=None)
@given(some_images(), st.sampled_from([0.125, 0.25, 0.5, 1.0, 2.0]))
def test_expanded_they_are_the_rows_at_any_temperature(images: list[LowRank], power: float) -> None:
    wanted = np.concatenate([oracle(image, power) for image in images])
    labels = small(tables_of(images, power))
    rows = labels.dense()
    assert rows.dtype == torch.float32 and rows.min() >= 0 and len(labels) == len(wanted)
    np.testing.assert_allclose(rows, wanted, rtol=0, atol=2e-6)
    doubled = small(
        tables_of(images, power).changed(lambda one: one.double() if one.is_floating_point() else one)
    )
    np.testing.assert_allclose(doubled.dense(), wanted, rtol=0, atol=2e-6)
    sure = np.concatenate([oracle(image) for image in images]).max(axis=1)
    np.testing.assert_allclose(tables_of(images, power).confidence(), sure, rtol=0, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(some_images(), st.sampled_from([0.25, 1.0]))
def test_every_rule_reads_them_as_full_labels(images: list[LowRank], power: float) -> None:
    full = torch.from_numpy(np.concatenate([oracle(image) for image in images])).float()
    # Ties that rounding breaks either way: then classes, not probabilities, differ.
    assume(all(len(torch.unique(row)) == len(torch.unique((row * 2**18).round())) for row in full))
    classes = full.shape[1]
    names = ["hard", "smoothing", "marginal_renorm_k1", "full"]
    names += [f"marginal_smoothing_k{n}" for n in {1, classes // 2, classes} if n]
    for name in names:
        left = 1 - full.sort(dim=1).values[:, -(parse_label_type(name).k or 1) :].sum(dim=1).max()
        if "smoothing" in name and power != 1 and left < 0.01:
            continue  # the last digit of a float32 near 1 would decide how much the other classes get
        labels = from_tables(tables_of(images, power), parse_label_type(name))
        wanted = from_topk(None, full, classes, rule=name, power=power).dense()
        torch.testing.assert_close(labels.dense(), wanted, rtol=0, atol=5e-6, msg=name)


def some(seed: int, images: int = 8, crops: int = 4, classes: int = 200, kept: int = 30) -> list[LowRank]:
    return [made_image(seed + i, crops, classes, kept - i, 1 + i % 5) for i in range(images)]


def test_they_are_small_and_made_rows_only_where_those_are_smaller() -> None:
    lowrank = parse_label_type("lowrank")
    labels = from_tables(tables_of(some(0)), lowrank)
    assert labels.index.shape == labels.mass.shape == (32, 0) and labels.even is None
    assert sum(tensor.numel() for tensor in labels.tensors()) < 0.3 * 32 * 200
    alone = from_tables(
        tables_of(some(0, crops=1, kept=60)), lowrank
    )  # one crop of each: the tables are larger
    assert not alone.tables and alone.mass.shape == (8, 200)
    wanted = np.concatenate([oracle(image) for image in some(0, crops=1, kept=60)])
    np.testing.assert_allclose(alone.dense(), wanted, rtol=0, atol=2e-6)


def test_the_loss_is_that_of_the_dense_rows_and_nothing_rounds_them() -> None:
    images, power = some(3), 0.5
    labels = from_tables(tables_of(images, power), parse_label_type("lowrank"))
    wanted = torch.from_numpy(np.concatenate([oracle(image, power) for image in images]))
    logits = 3 * torch.randn(32, 200, generator=torch.manual_seed(0), dtype=torch.float64)
    z = logits.clone().requires_grad_()
    loss = -(wanted * z.log_softmax(1)).sum(1).mean()
    (gradient,) = torch.autograd.grad(loss, z)
    for dtype in (torch.float64, torch.float32):
        z = logits.to(dtype).requires_grad_()
        found = SoftCrossEntropy()(z, labels)
        torch.testing.assert_close(found.double(), loss, rtol=2e-6, atol=0)
        torch.testing.assert_close(torch.autograd.grad(found, z)[0].double(), gradient, rtol=0, atol=1e-7)
    exact = labels.dense()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(labels.dense(), exact)
            half = SoftCrossEntropy()(logits.bfloat16(), labels)
    finally:
        torch.set_float32_matmul_precision(before)
    assert half.dtype == torch.float32
    assert torch.equal(half, SoftCrossEntropy()(logits.bfloat16().float(), labels))


def test_rows_are_taken_mixed_adapted_and_moved() -> None:
    images, others = some(5), some(50, kept=20)
    labels, more = (from_tables(tables_of(one), parse_label_type("lowrank")) for one in (images, others))
    rows, more_rows = (np.concatenate([oracle(image) for image in one]) for one in (images, others))
    perm = torch.randperm(32, generator=torch.manual_seed(0))
    np.testing.assert_allclose(labels[perm].dense(), rows[perm], rtol=0, atol=2e-6)
    np.testing.assert_allclose(labels[3:7].dense(), rows[3:7], rtol=0, atol=2e-6)
    index = torch.arange(5).expand(32, 5)
    sparse = from_topk(index, torch.full((32, 5), 0.15), 200, rule="marginal_smoothing_k5")
    mixed = mix([labels, more, sparse, labels[perm]], [1, 2, 3, 4])
    wanted = 0.1 * rows + 0.2 * more_rows + 0.3 * sparse.dense().numpy() + 0.4 * rows[perm]
    assert len(mixed.tables) == 3 and len(mixed) == 32
    np.testing.assert_allclose(mixed.dense(), wanted, rtol=0, atol=2e-6)
    np.testing.assert_allclose(mix([mixed, mixed[perm]]).dense(), (wanted + wanted[perm]) / 2, atol=2e-6)
    evenly = SoftLabels(labels.index, labels.mass, torch.full((32,), 0.001), 200, labels[perm].tables)
    np.testing.assert_allclose(evenly.dense(), rows[perm] + 0.001, rtol=0, atol=2e-6)
    np.testing.assert_allclose(evenly.expanded().dense(), rows[perm] + 0.001, rtol=0, atol=2e-6)
    logits = torch.randn(32, 200, generator=torch.manual_seed(0))
    loss = -(torch.from_numpy(wanted) * logits.double().log_softmax(1)).sum(1).mean()
    assert float(SoftCrossEntropy()(logits, mixed)) == pytest.approx(float(loss), rel=1e-6)

    by, confidence = LabelAdaptation(0.3, 0.2, 0.5), torch.from_numpy(rows.max(axis=1))
    target = torch.arange(32)
    soft = torch.full((32, 200), 0.2 / 200) + 0.8 * torch.eye(200)[target]
    low = (confidence < 0.3)[:, None]
    assert 3 < low.sum() < 29
    expected = torch.where(low, 0.5 * torch.from_numpy(rows) + 0.5 * soft, torch.from_numpy(rows))
    torch.testing.assert_close(
        adapted(labels, target, confidence, by).dense().double(), expected, rtol=0, atol=2e-6
    )

    moved = mixed.to("meta")
    assert {tensor.device.type for tensor in moved.tensors()} == {"meta"}
    assert len(list(moved.tensors())) == 3 + 3 * 9
    assert moved[perm.to("meta")].tables[0].classes.shape == mixed.tables[0].classes.shape


def test_a_row_has_the_same_bits_in_every_batch() -> None:
    """On a CPU, so that labels do not depend on how many ranks share a batch."""
    images = [
        made_image(seed, 4, 500, kept, rank) for seed, kept, rank in ((1, 17, 3), (2, 200, 7), (3, 5, 0))
    ]
    together = small(tables_of(images)).dense()
    for i, image in enumerate(images):
        assert torch.equal(small(tables_of([image])).dense(), together[4 * i : 4 * i + 4])
