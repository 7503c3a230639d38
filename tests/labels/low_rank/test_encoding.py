"""Low-rank labels keep to the error that was asked for, whatever the teacher's distributions are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import RecordError
from slg_wds.format.records.low_rank.codec import decode_low_rank, encode_low_rank, open_low_rank
from slg_wds.labels.low_rank import encode
from slg_wds.labels.low_rank.encoding import WORST


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def views(rng, crops, classes, rank=4, noise=0.3):
    """The distributions of a teacher that sees one thing in all crops: few directions, and a little noise."""
    mean, directions = rng.normal(0, 3, classes), rng.normal(0, 1, (rank, classes))
    return softmax(
        mean + rng.normal(0, 1, (crops, rank)) @ directions + rng.normal(0, noise, (crops, classes))
    )


def kl_by_hand(exact, stored):
    """KL of each crop in nats, a term where the exact probability is 0 being 0."""
    exact = exact.astype(float) / exact.sum(axis=1, dtype=float, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nansum(np.where(exact > 0, exact * (np.log(exact) - np.log(stored)), 0.0), axis=1)


def as_read(labels, classes):
    """The float32 distributions that a reader of the stored bytes gets."""
    packed = open_low_rank(encode_low_rank(labels), labels.block_of, classes)
    return decode_low_rank(packed, labels.kl).distributions().astype(np.float32)


def check(probabilities, max_kl):
    labels = encode(probabilities, max_kl)
    each = kl_by_hand(probabilities, as_read(labels, probabilities.shape[1]))
    assert each.mean() <= max_kl and each.max() <= WORST * max_kl
    assert math.isclose(labels.kl.mean, max(each.mean(), 0), rel_tol=1e-3, abs_tol=1e-6)
    assert math.isclose(labels.kl.worst, max(each.max(), 0), rel_tol=1e-3, abs_tol=1e-5)
    assert labels.kl.against == "teacher" and labels.kl.parents == ()
    return labels


@pytest.mark.parametrize("max_kl", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("crops", [1, 3, 60])
def test_the_error_is_kept(crops, max_kl):
    check(views(np.random.default_rng(crops), crops, 300), max_kl)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([0.3, 3.0, 30.0]),
    st.sampled_from([0.3, 0.05, 0.001]),
)
def test_few_crops_of_few_classes(crops, classes, spread, max_kl):
    rng = np.random.default_rng(crops * 100 + classes)
    check(softmax(rng.normal(0, spread, (crops, classes))), max_kl)


def one_hot(crops, classes, of):
    return np.eye(classes, dtype=np.float32)[np.array([of(i) % classes for i in range(crops)])]


@pytest.mark.parametrize(
    ("probabilities", "most_bytes"),
    [
        (np.ones((5, 1), np.float32), 60),
        (np.full((20, 1000), 0.001, np.float32), 40),
        (one_hot(50, 1000, lambda i: 3), 60),
        (one_hot(50, 1000, lambda i: i % 2), 80),
        (one_hot(64, 1000, lambda i: 17 * i), 3000),
        (np.repeat(views(np.random.default_rng(1), 1, 1000), 50, axis=0), 150),
    ],
    ids=[
        "one class",
        "uniform",
        "one certain class",
        "two certain classes",
        "all certain",
        "identical crops",
    ],
)
def test_simple_teachers_take_few_bytes(probabilities, most_bytes):
    assert len(encode_low_rank(check(probabilities, 0.1))) <= most_bytes


def test_crops_that_have_nothing_in_common():
    check(softmax(np.random.default_rng(0).normal(0, 4, (60, 200))), 0.1)
    check(softmax(np.random.default_rng(1).normal(0, 1, (80, 400))), 0.1)


def test_crops_apart_leave_the_others_a_divergence_above_zero():
    """Draws of which some crops were to be apart although the others could not make up for them."""
    check(softmax(np.random.default_rng(12).normal(0, 5.0, (130, 50))), 0.5)
    rng = np.random.default_rng(43)
    certain = np.eye(150, dtype=np.float32)[rng.integers(0, 150, 130)]
    check(np.where(rng.random((130, 1)) < 0.3, certain, softmax(rng.normal(0, 1, (130, 150)))), 0.02)


@pytest.mark.parametrize("seed", [5, 6, 8])
def test_a_few_other_crops_do_not_make_the_rest_dear(seed):
    rng = np.random.default_rng(seed)
    same = views(rng, 95, 400, noise=0.1)
    other = softmax(rng.normal(0, 4, (5, 400)))
    together = len(encode_low_rank(check(np.concatenate([same[:40], other, same[40:]]), 0.1)))
    apart = [len(encode_low_rank(check(some, 0.1))) for some in (same, other)]
    assert together < 1.2 * sum(apart), (together, apart)


def test_more_crops_than_a_block_holds(monkeypatch):
    monkeypatch.setattr("slg_wds.labels.low_rank.encoding.BLOCK_CROPS", 30)
    labels = check(views(np.random.default_rng(2), 100, 50), 0.1)
    assert len(labels.blocks) >= 4


def test_rows_of_a_low_precision_that_do_not_sum_to_one():
    rows = views(np.random.default_rng(8), 30, 100)
    assert encode(rows * np.float32(1.004), 0.1).kl.mean == pytest.approx(encode(rows, 0.1).kl.mean, rel=1e-3)


def test_equal_probabilities_give_equal_bytes_wherever_they_lie_in_memory():
    rows = views(np.random.default_rng(9), 40, 333)
    shifted = np.empty(rows.nbytes + 4, np.uint8)[4:].view(np.float32).reshape(rows.shape)
    shifted[:] = rows
    wanted = encode_low_rank(encode(rows, 0.1))
    assert encode_low_rank(encode(shifted, 0.1)) == wanted
    assert encode_low_rank(encode(np.asfortranarray(rows), 0.1)) == wanted


def test_what_labels_are_of_is_stated():
    kl = encode(views(np.random.default_rng(3), 8, 20), 0.1, "labels", (0.05, None)).kl
    assert (kl.against, kl.parents) == ("labels", (0.05, None))


def test_an_error_that_no_integers_reach_is_refused():
    with pytest.raises(RecordError, match="no low-rank labels"):
        encode(softmax(np.random.default_rng(4).normal(0, 3, (1, 500))), 1e-12)


def test_no_crops():
    labels = encode(np.zeros((0, 10), np.float32), 0.1)
    assert labels.blocks == () and labels.coefficients.shape == (0, 0) and labels.kl.mean == 0
