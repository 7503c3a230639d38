"""Recovering dense distributions from a record's columns, in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from slg_wds.errors import RuleError, UsageError
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import Tail
from slg_wds.labels import distribution, parse_label_type
from support.oracles.labels_oracle import Made, made_labels, make, oracle, rules_of


def fkd(index: np.ndarray, value: np.ndarray, classes: int, label_type: str) -> np.ndarray:
    """FKD's recovery, written again: what the top leaves is shared by the other classes, or scaled away."""
    index, value = torch.from_numpy(index), torch.from_numpy(value)
    k = index.shape[1]
    if label_type == "hard":
        return torch.nn.functional.one_hot(index[:, 0], classes).float().numpy()
    if label_type == "marginal_renorm":
        return torch.nn.functional.normalize(
            torch.zeros(len(index), classes).scatter(1, index, value), p=1
        ).numpy()
    minor = (1 - value.sum(dim=1, keepdim=True)) / (classes - k)
    return (minor * torch.ones(len(index), classes)).scatter(1, index, value).numpy()


@pytest.mark.parametrize("coding", ["float32", "float16"])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(
    ("label_type", "k"),
    [
        ("hard", 1),
        ("smoothing", 1),
        ("marginal_smoothing_k5", 5),
        ("marginal_smoothing_k10", 10),
        ("marginal_renorm", 5),
        ("marginal_renorm", 10),
    ],
)
def test_reads_as_fkd_defines_it(label_type: str, k: int, sharpness: float, coding: str) -> None:
    made = make(seed=k, crops=40, classes=1000, k=k, sharpness=sharpness, coding=coding, tail_classes=64)
    wanted = fkd(made.index, made.value, 1000, label_type)
    exceeds = made.value.sum(axis=1) > 1  # there FKD's other classes are negative, ours 0
    assert exceeds.mean() < 0.5
    np.testing.assert_allclose(
        distribution(made, rule=label_type)[~exceeds], wanted[~exceeds], rtol=0, atol=3e-7
    )


@settings(max_examples=150, deadline=None)
@given(made_labels())
def test_every_rule_is_what_it_says(made: Made) -> None:
    check_every_rule(made)


@settings(max_examples=100, deadline=None)
@given(made_labels(full=True))
def test_full_labels_give_every_rule_but_the_tail(made: Made) -> None:
    check_every_rule(made)
    with pytest.raises(RuleError, match="needs a shared tail"):
        distribution(made, rule=f"shared_tail_k{made.num_classes}")


def check_every_rule(made: Made) -> None:
    for rule in rules_of(made):
        rows = distribution(made, rule=rule)
        assert rows.dtype == np.float32 and rows.shape == (len(made.index), made.num_classes)
        assert rows.min() >= 0
        assert abs(rows.astype(np.float64).sum(axis=1) - 1).max() <= 1e-6
        np.testing.assert_allclose(rows, oracle(made, rule), rtol=2e-7, atol=1e-12, err_msg=rule)
        np.testing.assert_array_equal(rows, distribution(made, made.num_classes, parse_label_type(rule)))


@settings(max_examples=60, deadline=None)
@given(made_labels())
def test_without_a_rule_all_that_is_stored_is_used(made: Made) -> None:
    shared = [rule for rule in rules_of(made) if rule.startswith("shared_tail")]
    np.testing.assert_array_equal(
        distribution(made), distribution(made, rule=[*shared, "marginal_smoothing"][0])
    )
    full = replace(
        made,
        index=np.broadcast_to(np.arange(made.num_classes), made.probs.shape),
        value=made.probs,
        full=True,
    )
    np.testing.assert_array_equal(distribution(full), distribution(full, rule="full"))
    hard = replace(
        made, index=made.index[:, :1], value=np.ones((len(made.index), 1), np.float32), coding="none"
    )
    np.testing.assert_array_equal(distribution(hard), np.eye(made.num_classes)[made.index[:, 0]])
    with pytest.raises(RuleError, match=r"only the top class is stored.*can give hard$"):
        distribution(hard, rule="marginal_renorm")


def columns(index: list[list[int]], value: list[list[float]], classes: int, tail: Tail | None = None) -> Made:
    value = np.array(value, np.float32)
    return Made(value, np.array(index), value, tail, "float32", False, classes)


def test_a_sum_above_one_leaves_nothing_and_is_scaled_to_one() -> None:
    made = columns([[2, 0]], [[0.75, 0.5]], 4)
    for rule in ("marginal_smoothing_k2", "marginal_renorm"):
        np.testing.assert_array_equal(distribution(made, rule=rule), np.float32([[0.4, 0, 0.6, 0]]))


def test_k_of_all_classes_leaves_no_class_to_spread_over() -> None:
    made = columns([[1, 0]], [[0.5, 0.25]], 2)
    for rule in ("marginal_smoothing", "marginal_renorm", "shared_tail_k2"):
        np.testing.assert_array_equal(distribution(made, rule=rule), np.float32([[1 / 3, 2 / 3]]))
    np.testing.assert_array_equal(distribution(made, rule="smoothing"), np.float32([[0.5, 0.5]]))


def test_values_that_rounding_took_whole_share_evenly() -> None:
    made = columns([[1, 0]], [[0.0, 0.0]], 4)
    np.testing.assert_array_equal(distribution(made, rule="marginal_renorm"), np.float32([[0.5, 0.5, 0, 0]]))
    np.testing.assert_array_equal(
        distribution(made, rule="marginal_smoothing"), np.float32([[0, 0, 0.5, 0.5]])
    )
    full = replace(made, index=np.arange(4)[None], value=np.zeros((1, 4), np.float32), full=True)
    np.testing.assert_array_equal(distribution(full), np.full((1, 4), 0.25, np.float32))


def test_the_tail_is_spread_outside_the_top_in_proportion() -> None:
    # v = 0.4, 0.2 for the classes 1, 3 and 0.1 for each of 0, 2, 4; the second crop has 1 in its own top.
    tail = Tail(np.array([1, 3]), np.array([0, 16], np.uint8), scale=0.4, rest=0.1)
    made = columns(
        [[0, 2], [1, 4], [3, 1], [0, 1]], [[0.5, 0.2], [0.6, 0.2], [0.9, 0.1], [0.5, 0.5]], 5, tail
    )
    wanted = [
        [0.5, 0.3 * 4 / 7, 0.2, 0.3 * 2 / 7, 0.3 / 7],
        [0.2 / 4, 0.6, 0.2 / 4, 0.2 * 2 / 4, 0.2],
        [0, 0.1, 0, 0.9, 0],
        [0.5, 0.5, 0, 0, 0],
    ]
    np.testing.assert_allclose(distribution(made, rule="shared_tail_k2"), wanted, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(
        distribution(made, rule="marginal_smoothing_k2")[0], [0.5, 0.1, 0.2, 0.1, 0.1], rtol=1e-6
    )


def test_a_tail_without_mass_outside_the_top_is_even() -> None:
    tail = Tail(np.array([1]), np.array([0], np.uint8), scale=0.3, rest=0.0)
    made = columns([[1, 0], [0, 2]], [[0.5, 0.25], [0.5, 0.25]], 4, tail)
    assert distribution(made, rule="shared_tail_k2").tolist() == [
        [0.25, 0.5, 0.125, 0.125],
        [0.5, 0.25, 0.25, 0],
    ]


def test_a_tail_as_thin_as_numbers_can_be_keeps_its_shape() -> None:
    tail = Tail(np.array([1, 2]), np.array([0, 16], np.uint8), scale=2.0**-140, rest=2.0**-142)
    made = columns([[0, 3]], [[0.5, 0.25]], 5, tail)
    wanted = [[0.5, 0.25 * 4 / 7, 0.25 * 2 / 7, 0.25, 0.25 / 7]]
    np.testing.assert_allclose(distribution(made), wanted, rtol=1e-6)


def test_a_record_reaches_it_and_is_not_changed() -> None:
    made = make(seed=3, crops=8, classes=30, k=4, sharpness=2.0, coding="float16", tail_classes=64)
    boxes = np.tile(np.array([0, 0, 10, 10]), (8, 1))
    record = Record(
        key="a/b", path="a/b.jpg", target=None, size=(10, 10), crops=boxes, flips=np.zeros(8, bool), index=made.index,
        value=made.value, tail=made.tail, coding="float16", full=False, num_classes=30,
    )  # fmt: skip
    before = made.index.copy(), made.value.copy()
    np.testing.assert_array_equal(
        record.distribution(rule="shared_tail_k4"), distribution(made, rule="shared_tail_k4")
    )
    np.testing.assert_array_equal(
        record.distribution(30, "marginal_renorm_k2"), distribution(made, 30, "marginal_renorm_k2")
    )
    np.testing.assert_array_equal(record.distribution(), distribution(made))
    np.testing.assert_array_equal(made.index, before[0])
    np.testing.assert_array_equal(made.value, before[1])


def test_another_number_of_classes_and_unknown_rules_are_refused() -> None:
    made = make(seed=3, crops=8, classes=30, k=4, sharpness=2.0, coding="float16", tail_classes=0)
    with pytest.raises(UsageError, match="over 30 classes, not 31"):
        distribution(made, 31)
    with pytest.raises(UsageError, match="marginal_renorm_k5"):
        distribution(made, rule="marginal_norm_k5")
    with pytest.raises(RuleError, match="needs a shared tail, and none is stored"):
        distribution(made, rule="shared_tail_k4")


def test_the_tail_is_nearer_to_the_teacher_than_an_even_spread() -> None:
    made = make(seed=5, crops=100, classes=200, k=5, sharpness=1.5, coding="log8", tail_classes=64)
    truth = made.probs.astype(np.float64)

    def divergence(rule: str) -> float:
        rows = np.maximum(distribution(made, rule=rule), 1e-12)
        return float((truth * np.log(np.maximum(truth, 1e-12) / rows)).sum(axis=1).mean())

    assert divergence("shared_tail_k5") < 0.8 * divergence("marginal_smoothing_k5")
