"""Names of label types, and which rules stored columns can give."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slg_wds import labels
from slg_wds.errors import RuleError, UsageError
from slg_wds.labels import KINDS, LabelType, StoredColumns, parse_label_type

BARE = ["hard", "smoothing", "full", "marginal_smoothing", "marginal_renorm"]
NAMES = st.one_of(
    st.sampled_from(BARE),
    st.builds(
        "{}_k{}".format,
        st.sampled_from(["marginal_smoothing", "marginal_renorm", "shared_tail"]),
        st.integers(1, 999_999_999),
    ),
)


@given(NAMES)
def test_a_name_reads_back_as_itself(name: str) -> None:
    label = parse_label_type(name)
    assert str(label) == name
    assert parse_label_type(str(label)) == label
    assert label.kind in KINDS
    assert pickle.loads(pickle.dumps(label)) == label


def test_what_a_name_means() -> None:
    assert parse_label_type("hard") == LabelType("hard", None)
    assert parse_label_type("marginal_smoothing_k5") == LabelType("marginal_smoothing", 5)
    assert parse_label_type("marginal_renorm") == LabelType("marginal_renorm", None)
    assert parse_label_type("shared_tail_k128") == LabelType("shared_tail", 128)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("marginal_smoothing_k0", "marginal_smoothing_k5"),
        ("marginal_smoothing_k05", "marginal_smoothing_k5"),
        ("marginal_smoothing_7", "marginal_smoothing_k7"),
        ("marginal_smooth_k12", "marginal_smoothing_k12"),
        ("shared_tail", "shared_tail_k5"),
        ("shared_tail_k-1", "shared_tail_k1"),
        ("renorm_k10", "marginal_renorm_k10"),
        ("Hard", "hard"),
        ("smoothing ", "smoothing"),
        ("smoothing_k5", "marginal_smoothing_k5"),
        ("full_k5", "full"),
        ("marginal_smoothing_k5\n", "marginal_smoothing_k5"),
        ("marginal_smoothing_k٥", "marginal_smoothing_k5"),
        ("", "known: hard, smoothing, marginal_smoothing_kN"),
        ("xyz", "known: hard, smoothing, marginal_smoothing_kN"),
    ],
)
def test_a_wrong_name_is_refused_with_the_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_label_type(wrong)
    assert repr(wrong) in str(caught.value)
    assert near in str(caught.value)


@given(st.text())
def test_no_text_does_worse_than_a_usage_error(text: str) -> None:
    try:
        assert str(parse_label_type(text)) == text
    except UsageError as error:
        assert "label type" in str(error)


@pytest.mark.parametrize(
    ("kind", "k"), [("hard", 1), ("shared_tail", None), ("full", 3), ("soft", None), ("shared_tail", 0)]
)
def test_types_that_have_no_name_cannot_be_made(kind: str, k: int | None) -> None:
    with pytest.raises(UsageError):
        LabelType(kind, k)


def test_k_to_store() -> None:
    assert parse_label_type("hard").stored_k(1000) == 1
    assert parse_label_type("smoothing").stored_k(1000) == 1
    assert parse_label_type("full").stored_k(37) == 37
    assert parse_label_type("shared_tail_k37").stored_k(37) == 37
    said = r"label type \w+_k38 needs 38 classes, but there are 37; the most that fits is \w+_k37"
    with pytest.raises(UsageError, match=said):
        parse_label_type("marginal_renorm_k38").stored_k(37)
    with pytest.raises(UsageError, match=r"names no k.*marginal_smoothing_k5"):
        parse_label_type("marginal_smoothing").stored_k(37)
    with pytest.raises(UsageError, match="at least 1"):
        parse_label_type("full").check(0)


def rules(k: int) -> list[str]:
    kinds = ("marginal_smoothing", "marginal_renorm", "shared_tail")
    return BARE + [f"{kind}_k{n}" for kind in kinds for n in range(1, k + 2)]


def allowed(stored: StoredColumns) -> set[str]:
    given = set()
    for rule in rules(stored.k):
        try:
            stored.resolve(rule)
        except RuleError as error:
            assert stored.can_give() in str(error)
        else:
            given.add(rule)
    return given


def test_what_columns_can_give() -> None:
    plain = {"hard", "smoothing", "marginal_smoothing", "marginal_renorm"}
    upto3 = {f"marginal_{kind}_k{n}" for kind in ("smoothing", "renorm") for n in (1, 2, 3)}
    assert allowed(StoredColumns(3, 10)) == plain | upto3
    assert allowed(StoredColumns(3, 10, tail=True)) == plain | upto3 | {"shared_tail_k3"}
    assert allowed(StoredColumns(3, 3, full=True)) == plain | upto3 | {"full"}
    assert allowed(StoredColumns(3, 3)) == plain | upto3
    assert allowed(StoredColumns(1, 10, values=False)) == {"hard"}


def test_a_rule_without_k_means_the_stored_one() -> None:
    assert StoredColumns(7, 10).resolve("marginal_renorm") == LabelType("marginal_renorm", 7)
    assert StoredColumns(7, 10).resolve(LabelType("marginal_smoothing")) == LabelType("marginal_smoothing", 7)
    assert StoredColumns(7, 10).resolve("smoothing") == LabelType("smoothing")


def test_the_default_uses_all_that_is_stored() -> None:
    assert str(StoredColumns(7, 10).resolve(None)) == "marginal_smoothing_k7"
    assert str(StoredColumns(7, 10, tail=True).resolve(None)) == "shared_tail_k7"
    assert str(StoredColumns(10, 10, full=True).resolve(None)) == "full"
    assert str(StoredColumns(1, 10, values=False).resolve(None)) == "hard"


@pytest.mark.parametrize(
    ("stored", "rule", "words"),
    [
        (
            StoredColumns(5, 10),
            "marginal_smoothing_k6",
            "needs 6 classes per crop, and the set stores 5; .*_k1 to _k5",
        ),
        (StoredColumns(5, 10), "shared_tail_k5", "needs a shared tail, and none is stored"),
        (
            StoredColumns(5, 10, tail=True),
            "shared_tail_k3",
            "shared tail outside 3 classes, and the one outside 5 is stored; .*shared_tail_k5",
        ),
        (StoredColumns(5, 10, tail=True), "full", "needs all 10 probabilities, and 5 are stored"),
        (StoredColumns(10, 10, full=True), "shared_tail_k10", "needs a shared tail"),
        (
            StoredColumns(1, 10, values=False),
            "smoothing",
            "only the top class is stored; these labels can give hard$",
        ),
    ],
)
def test_a_rule_that_cannot_be_says_why(stored: StoredColumns, rule: str, words: str) -> None:
    with pytest.raises(RuleError, match=words):
        stored.resolve(rule)


def test_importing_the_package_does_not_import_torch() -> None:
    code = """
import sys, slg_wds.labels as labels
assert "SoftLabels" in dir(labels)
try: labels.nothing
except AttributeError as error: assert "nothing" in str(error)
else: raise SystemExit("an unknown name was found")
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there() -> None:
    assert [name for name in labels.__all__ if not hasattr(labels, name)] == []
    assert callable(labels.topk) and callable(labels.recover)
