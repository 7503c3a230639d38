"""The sparse merge against dense distributions, and conversions of one record."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.ensembling.convert import Conversion, check_conversion
from slg_wds.ensembling.merge import LabelFormat, merge
from slg_wds.errors import LabelSetError, UsageError
from slg_wds.format.manifest.identity import digest_of
from slg_wds.format.records.tail import build_tail
from slg_wds.labels import parse_label_type
from slg_wds.labelset.combining.joining import join_records, joined_digest
from slg_wds.labelset.labelset import LabelSet
from support.sets.made_sets import probabilities, record

TYPES = (
    "hard",
    "smoothing",
    "marginal_smoothing_k5",
    "marginal_renorm_k3",
    "shared_tail_k5",
    "shared_tail_k1",
    "full",
)


def output(label_type, classes, tail=64, coding="float32"):
    return LabelFormat(
        parse_label_type(label_type), coding, 0 if label_type in ("hard", "full") else tail, classes
    )


def dense(records, rules, shares, to):
    """The definition: recover the distributions, weight them, sort all classes."""
    mean = sum(
        s * r.distribution(rule=rule).astype(np.float64)
        for r, rule, s in zip(records, rules, shares, strict=True)
    )
    order = np.argsort(-mean.astype(np.float32), axis=1, kind="stable")[:, : to.k]
    outside = mean.copy()
    np.put_along_axis(outside, order, 0.0, axis=1)
    tail = build_tail(outside.mean(0), to.tail_classes, len(mean), to.k) if to.writes_tail else None
    return mean, order, tail


def tied(mean, order, tail_classes):
    """Whether two classes are so near each other that a rounding decides which of them the tail names."""
    outside = mean.copy()
    np.put_along_axis(outside, order, 0.0, axis=1)
    ranked = np.sort(outside.mean(0))[::-1]
    return len(ranked) > tail_classes and ranked[tail_classes - 1] - ranked[tail_classes] < 1e-7 * ranked[0]


def agrees(records, rules, shares, to):
    mean, order, tail = dense(records, rules, shares, to)
    found = merge(records, rules, shares, to)
    if to.full:
        assert np.abs(found.value - mean).max() < 1e-6
        return
    expected = np.take_along_axis(mean, order, axis=1)
    if to.label.kind != "hard":
        assert np.abs(found.value - expected).max() < 1e-6
    # The same classes, unless two are so near each other that the order of a sum decides.
    at = np.take_along_axis(mean, found.index, axis=1)
    assert np.abs(at - expected).max() < 1e-7
    clear = np.abs(np.diff(np.sort(mean, axis=1)[:, ::-1][:, : to.k + 1], axis=1)).min(axis=1) > 1e-7
    assert (found.index == order)[clear].all()
    assert (found.tail is None) == (tail is None)
    if tail is not None and clear.all() and not tied(mean, order, to.tail_classes):
        spread = [
            dataclasses.replace(
                records[0],
                tail=t,
                index=order,
                value=expected.astype(np.float32),
                full=False,
                coding="float32",
            ).distribution()
            for t in (found.tail, tail)
        ]
        assert np.abs(spread[0] - spread[1]).max() < 1e-2 * max(1e-4, expected.max())
        assert abs(found.tail.scale - tail.scale) < 1e-6 and abs(found.tail.rest - tail.rest) < 1e-6


def test_classes_that_no_set_stores_can_be_all_of_a_top():
    """Rounding left the stored classes nothing: what they leave of 1 is spread over the others."""
    to = output("marginal_smoothing_k2", 9, tail=0)
    empty = record("k", probabilities(0, 4, 9), "marginal_smoothing_k2", "float32", 0)
    empty = dataclasses.replace(empty, index=np.tile([3, 0], (4, 1)), value=np.zeros((4, 2), np.float32))
    found = merge([empty, empty], ["marginal_smoothing_k2"] * 2, [0.5, 0.5], to)
    assert found.index.tolist() == [[1, 2]] * 4 and found.value == pytest.approx(1 / 7)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_the_sparse_merge_is_the_dense_one(data):
    classes = data.draw(st.integers(8, 90))
    crops = data.draw(st.integers(1, 40))
    count = data.draw(st.integers(2, 4))
    kinds = data.draw(st.lists(st.sampled_from(TYPES), min_size=count, max_size=count))
    codings = data.draw(
        st.lists(st.sampled_from(("float32", "float16", "log8")), min_size=count, max_size=count)
    )
    weights = np.array(data.draw(st.lists(st.floats(0, 5), min_size=count, max_size=count)))
    weights = weights / weights.sum() if weights.sum() > 0 else np.full(count, 1 / count)
    records, rules = [], []
    for n, (kind, coding) in enumerate(zip(kinds, codings, strict=True)):
        tail = (
            data.draw(st.sampled_from((0, 3, 64)))
            if "shared" not in kind
            else data.draw(st.sampled_from((1, 5, 64)))
        )
        rows = probabilities(data.draw(st.integers(0, 99)) + n, crops, classes)
        records.append(record("k", rows, kind, coding, tail))
        rules.append(None if tail else kind)
    kind = data.draw(st.sampled_from((*TYPES, "shared_tail_k8")))
    agrees(records, rules, weights.tolist(), output(kind, classes, data.draw(st.sampled_from((1, 7, 64)))))


def converted(parts, to):
    conversion = Conversion(to)
    for part in parts:
        conversion.add(part)
    return conversion.finish()


def test_a_tail_whose_classes_are_all_in_a_top_is_spread_evenly():
    rows = probabilities(3, 12, 20)
    a, b = (
        record("k", rows, "shared_tail_k5", tail=3),
        record("k", probabilities(4, 12, 20), "shared_tail_k5"),
    )
    tail = dataclasses.replace(a.tail, rest=0.0, classes=np.sort(a.index[0][:3]))
    agrees([dataclasses.replace(a, tail=tail), b], [None, None], [0.3, 0.7], output("shared_tail_k5", 20))


def test_classes_that_no_set_knows_tie_to_the_lowest():
    a = record("k", np.eye(50, dtype=np.float32)[[40] * 8], "marginal_smoothing_k1", tail=0)
    value = np.full_like(a.value, 0.5)
    found = merge(
        [dataclasses.replace(a, value=value)] * 2,
        ["marginal_smoothing_k1"] * 2,
        [0.5, 0.5],
        output("shared_tail_k4", 50),
    )
    assert found.index.tolist() == [[40, 0, 1, 2]] * 8


@pytest.mark.parametrize("coding", ["float32", "float16", "log8"])
def test_one_set_keeps_what_it_stores(coding):
    whole = record("k", probabilities(1, 40, 100), "shared_tail_k10", coding)
    same = converted([whole], output("shared_tail_k10", 100))
    assert np.array_equal(same.index, whole.index) and np.array_equal(same.value, whole.value)
    assert same.tail is whole.tail


def test_one_set_keeps_no_more_of_its_tail_than_is_asked():
    whole = record("k", probabilities(1, 40, 100), "shared_tail_k10")
    assert len(whole.tail.classes) == 10
    less = converted([whole], output("shared_tail_k10", 100, tail=4)).tail
    largest = np.argsort(-whole.tail.probs, kind="stable")[:4]
    assert less.classes.tolist() == np.sort(whole.tail.classes[largest]).tolist()


def test_lower_k_is_what_the_teacher_would_have_given_but_for_the_tails_rounding():
    rows = probabilities(1, 40, 100)
    whole = record("k", rows, "shared_tail_k10")
    less = converted([whole], output("shared_tail_k5", 100))
    exact = record("k", rows, "shared_tail_k5")
    assert np.array_equal(less.index, exact.index) and np.array_equal(less.value, exact.value)
    from_full = converted([record("k", rows, "full")], output("shared_tail_k5", 100))
    assert np.array_equal(from_full.tail.codes, exact.tail.codes)
    assert np.array_equal(from_full.tail.classes, exact.tail.classes)
    # Classes that the stored tail does not keep come back with what the rest of them share.
    read = [dataclasses.replace(whole, index=it.index, value=it.value, tail=it.tail) for it in (less, exact)]
    differ = np.abs(read[0].distribution() - read[1].distribution()).sum(axis=1) / 2
    assert differ.mean() < 0.03


@pytest.mark.parametrize(
    ("stored", "full", "values", "asked"),
    [(5, False, "float16", "full"), (5, False, "float16", "shared_tail_k6"), (1, False, "none", "smoothing")],
)
def test_one_set_cannot_be_made_larger(stored, full, values, asked):
    with pytest.raises(UsageError, match=r"full labels|needs"):
        check_conversion(stored, full, values, output(asked, 20))


EXTENDED = {
    "label_type": "shared_tail_k5",
    "num_classes": 80,
    "extends": {"digest": "00", "first_crop": 25},
    "num_crops": 40,
    "tail_classes": 64,
}


def whole_and_parts():
    """The record of one run, and those of two sets, the second of which extends the first."""
    rows = probabilities(7, 40, 80)
    whole = record("k", rows, "shared_tail_k5")
    parts = [record("k", part, "shared_tail_k5", crops=whole.crops[at], flips=whole.flips[at])
             for part, at in ((rows[:25], slice(25)), (rows[25:], slice(25, None)))]  # fmt: skip
    return whole, parts


def test_joined_records_are_those_of_one_run_but_for_the_tails_rounding():
    whole, parts = whole_and_parts()
    found = join_records(parts, LabelSet.unsaved(None, EXTENDED))
    for name in ("crops", "flips", "index", "value"):
        assert np.array_equal(getattr(found, name), getattr(whole, name))
    assert len(found.tail.classes) == len(whole.tail.classes)
    assert np.abs(found.distribution() - whole.distribution()).max() < 0.02


@pytest.mark.parametrize(
    ("of_first", "of_last", "said"),
    [
        ({"size": (300, 301)}, {}, "differ in the size or target of this image"),
        ({"target": 2}, {}, "differ in the size or target of this image"),
        ({"target": None}, {}, "differ in the size or target of this image"),
        ({"image_crc32": 1}, {"image_crc32": 2}, "made from different files of this image"),
        ({"crops": np.zeros((24, 4), np.int64)}, {}, "hold 39 of its 40 crops"),
    ],
)
def test_records_that_do_not_belong_together_are_not_joined(of_first, of_last, said):
    first, last = (
        dataclasses.replace(part, **change)
        for part, change in zip(whole_and_parts()[1], (of_first, of_last), strict=True)
    )
    with pytest.raises(LabelSetError, match=said) as caught:
        join_records([first, last], LabelSet.unsaved(None, EXTENDED))
    assert caught.value.key == "k"


def test_a_joined_set_has_the_digest_of_one_run_except_of_low_rank_labels():
    def last(**more):
        identity = {**EXTENDED, **more}
        return dataclasses.replace(LabelSet.unsaved(None, identity), digest=digest_of("", identity))

    in_one_run = {name: value for name, value in EXTENDED.items() if name != "extends"}
    assert joined_digest(last()) == digest_of("", in_one_run) != last().digest
    coded = last(label_type="lowrank", max_kl=0.1)  # one run codes other crops together
    assert joined_digest(coded) == coded.digest


def test_a_checksum_that_only_one_set_knows_is_no_difference():
    first, last = whole_and_parts()[1]
    first = dataclasses.replace(first, image_crc32=1)
    assert join_records([first, last], LabelSet.unsaved(None, EXTENDED)).num_crops == 40


@pytest.mark.parametrize("label_type", ["shared_tail_k5", "marginal_smoothing_k1", "hard", "full"])
def test_full_labels_in_parts_become_what_they_become_together(label_type):
    rows = np.random.default_rng(0).dirichlet(np.full(100, 0.1), 40).astype(np.float32)
    to = output(label_type, 100)
    whole = converted([record("k", rows, "full")], to)
    parts = converted([record("k", rows[first : first + 7], "full") for first in range(0, 40, 7)], to)
    assert np.array_equal(whole.index, parts.index) and np.array_equal(whole.value, parts.value)
    assert (whole.tail is None) == (parts.tail is None) == (label_type in ("hard", "full"))
    if whole.tail is not None:
        assert np.array_equal(whole.tail.classes, parts.tail.classes)
        assert np.array_equal(whole.tail.codes, parts.tail.codes)
        assert (whole.tail.scale, whole.tail.rest) == (parts.tail.scale, parts.tail.rest)
        outside = rows.astype(np.float64)
        np.put_along_axis(outside, whole.index, 0, axis=1)
        assert whole.tail.scale == np.float32(outside.mean(axis=0).max())
