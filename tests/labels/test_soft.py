"""Recovering sparse, mixed and dense distributions from a batch's columns, in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import RuleError, UsageError
from slg_wds.format.records.tail import Tail
from slg_wds.labels import (
    SoftLabels,
    TailBatch,
    distribution,
    from_topk,
    mix,
    parse_label_type,
    recover,
    tail_batch,
)
from support.oracles.labels_oracle import Made, made_labels, make, oracle, rules_of


def columns(made: Made) -> tuple[torch.Tensor | None, torch.Tensor, TailBatch | None]:
    """One image's labels as a batch."""
    tail = None if made.full else tail_batch([made.tail], np.zeros(len(made.index)), made.num_classes)
    index = None if made.full else torch.from_numpy(made.index)
    return index, torch.from_numpy(made.value.copy()), tail


def soft(made: Made, rule: str | None = None, dtype: torch.dtype = torch.float32) -> SoftLabels:
    index, value, tail = columns(made)
    return from_topk(index, value, made.num_classes, rule=rule, tail=tail, dtype=dtype)


@settings(max_examples=120, deadline=None)
@given(st.one_of(made_labels(), made_labels(full=True)))
def test_every_rule_is_what_numpy_gives(made: Made) -> None:
    index, value, tail = columns(made)
    for rule in rules_of(made):
        rows = recover(index, value, made.num_classes, rule=rule, tail=tail)
        assert rows.dtype == torch.float32 and rows.shape == (len(made.index), made.num_classes)
        assert rows.min() >= 0
        assert (rows.double().sum(dim=1) - 1).abs().max() <= 1e-6
        np.testing.assert_allclose(rows, distribution(made, rule=rule), rtol=0, atol=3e-7, err_msg=rule)
        exact = soft(made, rule, torch.float64).dense()
        np.testing.assert_allclose(exact, oracle(made, rule), rtol=0, atol=1e-9, err_msg=rule)
        assert torch.equal(rows, soft(made, str(parse_label_type(rule))).dense())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**32), min_size=1, max_size=5), st.integers(1, 12), st.data())
def test_crops_of_several_images_each_use_their_own_tail(
    seeds: list[int], k: int, data: st.DataObject
) -> None:
    tail_classes = st.sampled_from([0, 2, 5, 64])  # of several lengths, and none, in one batch
    images = [make(seed, 20, 12, k, 3.0, "float16", data.draw(tail_classes)) for seed in seeds]
    row = data.draw(st.lists(st.integers(0, len(seeds) - 1), min_size=1, max_size=9))
    crop = data.draw(st.lists(st.integers(0, 19), min_size=len(row), max_size=len(row)))
    index = torch.from_numpy(np.stack([images[i].index[c] for i, c in zip(row, crop, strict=True)]))
    value = torch.from_numpy(np.stack([images[i].value[c] for i, c in zip(row, crop, strict=True)]))
    tail = tail_batch([image.tail for image in images], row, 12)
    lengths = {0 if image.tail is None else len(image.tail.classes) for image in images}
    assert tail.ragged == (len(lengths) > 1)
    rows = recover(index, value, 12, rule=f"shared_tail_k{k}", tail=tail)
    for got, i, c in zip(rows, row, crop, strict=True):
        np.testing.assert_allclose(got, distribution(images[i])[c], rtol=0, atol=3e-7)


def test_a_tail_almost_wholly_in_the_top_does_not_cancel() -> None:
    # All but a millionth of the tail is in a class of the crop's own top-k: the rest of it is what counts.
    tail = Tail(np.array([1, 2]), np.array([0, 254], np.uint8), scale=0.9, rest=1e-9)
    made = Made(
        np.zeros(0), np.array([[1, 0]]), np.array([[0.5, 0.1]], np.float32), tail, "float32", False, 50
    )
    np.testing.assert_allclose(soft(made).dense(), oracle(made, "shared_tail_k2"), rtol=1e-6, atol=0)
    thin = Tail(np.array([1, 2]), np.array([0, 16], np.uint8), scale=2.0**-138, rest=2.0**-142)
    made.tail = thin
    np.testing.assert_allclose(soft(made).dense(), oracle(made, "shared_tail_k2"), rtol=1e-5, atol=0)


def test_what_a_crop_leaves_is_even_where_its_top_has_all_of_the_tail() -> None:
    tail = Tail(np.array([1, 2]), np.array([0, 255], np.uint8), scale=0.9, rest=0.0)  # class 2 has nothing
    made = Made(
        np.zeros(0), np.array([[1, 0]]), np.array([[0.5, 0.1]], np.float32), tail, "float32", False, 6
    )
    rows = torch.tensor([[0.1, 0.5, 0.1, 0.1, 0.1, 0.1]])
    torch.testing.assert_close(soft(made).dense(), rows)
    np.testing.assert_allclose(rows, oracle(made, "shared_tail_k2"), rtol=1e-6)


def test_a_tail_batch_is_what_its_images_have() -> None:
    tails = [Tail(np.array([3, 7]), np.array([0, 16], np.uint8), 0.125, 0.03125), None]
    batch = tail_batch(tails, [1, 0, 0], 9)
    assert batch.classes.tolist() == [[3, 7], [9, 9]]
    assert batch.probs.tolist() == [[0.5, 0.25], [0.0, 0.0]]
    assert batch.rest.tolist() == [0.125, 0.0]
    assert batch.row.tolist() == [1, 0, 0] and batch.row.dtype == torch.int64
    assert batch.ragged and not tail_batch(tails[:1], [0], 9).ragged
    assert tail_batch([None], [0], 9).classes.shape == (1, 0)
    moved = batch.to("meta")
    assert moved.row.device.type == "meta" and moved.ragged


def test_without_a_rule_all_that_is_given_is_used() -> None:
    made = make(0, 8, 20, 4, 2.0, "float16", 64)
    index, value, tail = columns(made)
    assert torch.equal(
        recover(index, value, 20, tail=tail), recover(index, value, 20, rule="shared_tail_k4", tail=tail)
    )
    assert torch.equal(recover(index, value, 20), recover(index, value, 20, rule="marginal_smoothing"))
    full = torch.from_numpy(made.probs)
    torch.testing.assert_close(recover(None, full, 20), full, rtol=0, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.lists(made_labels(), min_size=1, max_size=3), st.data())
def test_a_mixture_is_the_average_of_the_dense_rows(made: list[Made], data: st.DataObject) -> None:
    first = made[0]
    shape = len(first.index), first.num_classes
    sets = [one for one in made if (len(one.index), one.num_classes) == shape]
    sets += [make(7, *shape, data.draw(st.integers(0, shape[1])), 3.0, "float16", 64)]
    labels = [soft(one, data.draw(st.sampled_from(rules_of(one))), torch.float64) for one in sets]
    weights = [data.draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])) for _ in labels[1:]] + [2.0]
    mixed = mix(labels, weights)
    wanted = sum(w / sum(weights) * one.dense() for w, one in zip(weights, labels, strict=True))
    torch.testing.assert_close(mixed.dense(), wanted, rtol=0, atol=1e-12)
    assert mixed.index.shape[1] == sum(one.index.shape[1] for one in labels)
    torch.testing.assert_close(
        mix(labels).dense(), sum(one.dense() for one in labels) / len(labels), rtol=0, atol=1e-12
    )


def test_mixup_without_dense_rows() -> None:
    labels = soft(make(1, 8, 20, 4, 2.0, "float16", 64))
    perm = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    mixed = mix([labels, labels[perm]], [0.3, 0.7]).dense()
    torch.testing.assert_close(mixed, 0.3 * labels.dense() + 0.7 * labels.dense()[perm], rtol=0, atol=1e-7)
    assert mixed.min() >= 0
    assert len(labels[2:5]) == 3 and labels[2:5].num_classes == 20


def test_a_dense_mixture_is_never_negative() -> None:
    # The zeros of stored values meet an even share that was rounded several times.
    index = torch.arange(5).expand(64, 5)
    value = torch.tensor([0.3, 0.2, 0.1, 0.0, 0.0]).expand(64, 5)
    labels = [from_topk(index, value * s, 1000, rule="marginal_smoothing") for s in (1.0, 0.7, 0.9)]
    mixed = mix(labels, [0.1, 0.3, 0.7])
    assert mixed.dense().min() >= 0
    assert torch.isfinite(torch.nn.functional.kl_div(torch.zeros(64, 1000), mixed.dense(), reduction="sum"))


def test_labels_move_as_one() -> None:
    labels = soft(make(1, 8, 20, 4, 2.0, "float16", 64))
    moved = labels.to("meta")
    assert {moved.index.device.type, moved.mass.device.type, moved.even.device.type} == {"meta"}
    assert labels.to("cpu").dense().equal(labels.dense())
    hard = soft(make(1, 8, 20, 4, 2.0, "float16", 64), "hard")
    assert hard.even is None and hard.to("meta").even is None


def test_what_does_not_fit_is_refused() -> None:
    index, value, tail = columns(make(0, 8, 20, 4, 2.0, "float16", 64))
    with pytest.raises(RuleError, match=r"needs 5 classes per crop, and the set stores 4"):
        recover(index, value, 20, rule="marginal_renorm_k5")
    with pytest.raises(RuleError, match="needs a shared tail"):
        recover(index, value, 20, rule="shared_tail_k4")
    with pytest.raises(RuleError, match="needs all 20 probabilities"):
        recover(index, value, 20, rule="full", tail=tail)
    with pytest.raises(UsageError, match="unknown label type"):
        recover(index, value, 20, rule="renorm")
    with pytest.raises(UsageError, match=r"index \(8, 3\) and value \(8, 4\) differ"):
        recover(index[:, :3], value, 20)
    with pytest.raises(UsageError, match=r"shape \(8, 4\) do not fit 3 classes"):
        recover(index, value, 3)
    with pytest.raises(UsageError, match=r"shape \(8, 4\) do not fit 20 classes"):
        recover(None, value, 20)
    with pytest.raises(UsageError, match="tail is for 8 crops, but there are 2"):
        recover(index[:2], value[:2], 20, tail=tail)


def test_mixtures_that_cannot_be_are_refused() -> None:
    one, other = (soft(make(0, crops, 20, 4, 2.0, "float16", 64)) for crops in (8, 9))
    with pytest.raises(UsageError, match="same number of rows and classes"):
        mix([one, other])
    with pytest.raises(UsageError, match="same number of rows and classes"):
        mix([one, soft(make(0, 8, 21, 4, 2.0, "float16", 64))])
    with pytest.raises(UsageError, match="1 weight for 2 distributions"):
        mix([one, one], [1.0])
    with pytest.raises(UsageError, match="weights are all zero"):
        mix([one, one], [0.0, 0.0])
    for weights in ([-1.0, 2.0], [float("nan"), 1.0], [float("inf"), 1.0]):
        with pytest.raises(UsageError, match="weights must be finite and at least 0"):
            mix([one, one], weights)
    with pytest.raises(UsageError, match="sum of the weights"):
        mix([one, one], [1e308, 1e308])
    with pytest.raises(UsageError, match="0 sets"):
        mix([])
