"""Labels at another temperature: numpy and torch against a restatement class by class, and what it means."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import UsageError
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import Tail
from slg_wds.format.recovery.temperature import power_of
from slg_wds.labels import SoftCrossEntropy, distribution, from_topk, recover, tail_batch
from support.oracles.labels_oracle import Made, made_labels, make, rules_of, tempered_oracle

POWERS = st.sampled_from([0.05, 0.125, 0.25, 0.5, 0.8, 2.0, 10.0])


def torch_rows(made: Made, rule: str, power: float, dtype: torch.dtype) -> np.ndarray:
    value = torch.from_numpy(made.value.copy())
    if made.full:
        return recover(None, value, made.num_classes, rule=rule, power=power, dtype=dtype).numpy()
    tail = tail_batch([made.tail], np.zeros(len(made.index)), made.num_classes)
    index = torch.from_numpy(made.index)
    return recover(index, value, made.num_classes, rule=rule, tail=tail, power=power, dtype=dtype).numpy()


@settings(max_examples=120, deadline=None)
@given(st.one_of(made_labels(), made_labels(full=True)), POWERS)
def test_every_rule_is_its_rows_to_a_power(made: Made, power: float) -> None:
    for rule in rules_of(made):
        wanted = tempered_oracle(made, rule, power)
        rows = distribution(made, rule=rule, power=power)
        assert rows.dtype == np.float32 and rows.min() >= 0
        assert abs(rows.astype(np.float64).sum(axis=1) - 1).max() <= 1e-6
        np.testing.assert_allclose(rows, wanted, rtol=3e-7, atol=1e-12, err_msg=rule)
        np.testing.assert_allclose(
            torch_rows(made, rule, power, torch.float64), wanted, rtol=0, atol=3e-8, err_msg=rule
        )
        single = torch_rows(made, rule, power, torch.float32)
        assert single.dtype == np.float32 and single.min() >= 0
        np.testing.assert_allclose(single, rows, rtol=0, atol=3e-7, err_msg=rule)


@settings(max_examples=40, deadline=None)
@given(st.one_of(made_labels(), made_labels(full=True)))
def test_at_their_own_temperature_labels_are_what_they_were(made: Made) -> None:
    for rule in rules_of(made):
        np.testing.assert_array_equal(distribution(made, rule=rule, power=1.0), distribution(made, rule=rule))
    np.testing.assert_array_equal(
        distribution(made, rule="hard", power=0.125), distribution(made, rule="hard")
    )


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_full_labels_give_the_teachers_softmax_at_that_temperature(temperature: float) -> None:
    logits = 4 * np.random.default_rng(0).normal(size=(8, 50))
    at = {t: torch.from_numpy(logits / t).softmax(dim=1).float().numpy() for t in (1.0, 2.0, temperature)}
    for made_at in (1.0, 2.0):
        made = make(0, 8, 50, 0, 1.0, "float32", 0)
        made.value = at[made_at]
        rows = distribution(made, power=power_of(temperature, made_at))
        np.testing.assert_allclose(rows, at[temperature], rtol=1e-5)


def test_a_row_by_hand() -> None:
    """Top 0.64 and 0.16, and 0.2 over five classes as 4 : 1 : 1 : 1 : 1, so 0.1 and four times 0.025; their roots."""
    tail = Tail(np.array([3]), np.array([0], np.uint8), scale=0.4, rest=0.1)
    made = Made(
        np.zeros(0), np.array([[5, 0]]), np.array([[0.64, 0.16]], np.float32), tail, "float32", False, 7
    )
    roots = np.sqrt([0.16, 0.025, 0.025, 0.1, 0.025, 0.64, 0.025])
    for rows in (
        distribution(made, rule="shared_tail_k2", power=0.5),
        torch_rows(made, "shared_tail_k2", 0.5, torch.float32),
    ):
        np.testing.assert_allclose(rows[0], roots / roots.sum(), rtol=1e-6)


def test_rounding_of_a_sum_is_no_tail() -> None:
    """0.9 + 0.1 in float32 is 1 - 2^-25 or so: to the power 1/8, what that leaves would be nearly all of the row."""
    value = np.array([[0.9, 0.1]], np.float32)
    assert 0 < (1 - value.astype(np.float64).sum()) < 2**-24
    made = Made(np.zeros(0), np.array([[5, 0]]), value, None, "float32", False, 1000)
    for rows in (
        distribution(made, power=0.125),
        torch_rows(made, "marginal_smoothing_k2", 0.125, torch.float32),
    ):
        assert rows[0, [0, 5]].sum() == pytest.approx(1, abs=1e-6)


def test_rounding_of_a_softmax_is_no_tail() -> None:
    """A teacher's own probabilities in float32, of crops of which it is sure: no other class has 1e-12."""
    logits = 100 * torch.randn((4000, 1000), generator=torch.manual_seed(0), dtype=torch.float64)
    exact = logits.softmax(1).sort(descending=True).values
    value, index = logits.float().softmax(1)[exact[:, 5:].sum(1) < 1e-12].topk(5)
    assert len(value) > 1000 and (value.double().sum(1) < 1 - 2**-24).any()
    made = Made(np.zeros(0), index.numpy(), value.numpy(), None, "float32", False, 1000)
    for rows in (
        distribution(made, power=1 / 3),
        torch_rows(made, "marginal_smoothing_k5", 1 / 3, torch.float32),
    ):
        assert np.take_along_axis(rows, index.numpy(), 1).sum(1) == pytest.approx(1, abs=1e-6)


def test_sparse_labels_stay_sparse_and_the_loss_takes_them() -> None:
    made = make(1, 16, 1000, 5, 3.0, "float16", 64)
    tail = tail_batch([made.tail], np.zeros(16), 1000)
    columns = torch.from_numpy(made.index), torch.from_numpy(made.value.copy())
    labels = from_topk(*columns, 1000, rule="shared_tail_k5", tail=tail, power=0.25)
    before = from_topk(*columns, 1000, rule="shared_tail_k5", tail=tail)
    assert labels.index.shape == before.index.shape and labels.mass.dtype == torch.float32
    logits = torch.randn(16, 1000, generator=torch.manual_seed(0), dtype=torch.float64)
    wanted = -(tempered_oracle(made, "shared_tail_k5", 0.25) * logits.log_softmax(1).numpy()).sum(1).mean()
    assert float(SoftCrossEntropy()(logits, labels)) == pytest.approx(wanted, rel=1e-6)


def record_of(made: Made, temperature: float | None) -> Record:
    crops = len(made.index)
    return Record(
        key="a", path="a.jpg", target=None, size=(10, 10), crops=np.tile([0, 0, 10, 10], (crops, 1)),
        flips=np.zeros(crops, bool), index=made.index, value=made.value, tail=made.tail, coding=made.coding,
        full=made.full, num_classes=made.num_classes, temperature=temperature,
    )  # fmt: skip


def test_a_record_knows_the_temperature_that_it_was_made_at() -> None:
    made = make(3, 8, 30, 4, 2.0, "float16", 64)
    record = record_of(made, 2.0)
    np.testing.assert_array_equal(record.distribution(temperature=8), distribution(made, power=0.25))
    np.testing.assert_array_equal(
        record.distribution(30, "marginal_renorm_k2", 1.0),
        distribution(made, rule="marginal_renorm_k2", power=2.0),
    )
    np.testing.assert_array_equal(record.distribution(), distribution(made))
    np.testing.assert_array_equal(record.distribution(temperature=2.0), distribution(made))
    unknown = replace(record, temperature=None)
    np.testing.assert_array_equal(unknown.distribution(), distribution(made))
    with pytest.raises(UsageError, match=r"need the one that they were made at.*open_labels\(url\)"):
        unknown.distribution(temperature=4)


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, "warm"])
def test_what_is_no_temperature_is_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match="temperature must be above 0, not"):
        power_of(wrong, 1.0)  # type: ignore[arg-type]
