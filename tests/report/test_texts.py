"""Numbers and sentences as a page shows them."""

from __future__ import annotations

import pytest

from slg_wds.report.writing.numbers import number, percent
from slg_wds.report.writing.recipe import recipe
from support.sets.made_sets import label_set


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.0, 1, "0.0%"),
        (0.123, 1, "12.3%"),
        (0.123, 0, "12%"),
        (1.0, 1, "100.0%"),
        (1.0, 0, "100%"),
        (0.0004, 1, "0.04%"),
        (0.004, 0, "0.4%"),
        (0.9994, 1, "99.9%"),
        (0.9999, 1, "99.99%"),
        (0.9996, 1, "99.96%"),
        (0.99996, 1, "99.996%"),
        (0.997, 0, "99.7%"),
        (0.999999, 0, "99.9999%"),
    ],
)
def test_only_nothing_is_0_percent_and_only_all_is_100(share, digits, text):
    assert percent(share, digits) == text


def test_numbers_have_their_thousands_apart():
    assert number(1234567) == "1,234,567"


def test_labels_over_prototypes_name_their_bank(tmp_path):
    labels = label_set(
        tmp_path / "set", 1, classes=60, identity={"bank_sha256": "ab" * 32, "temperature": 0.04}
    )
    lines = dict(recipe(labels, 3))["Labels"]
    assert "over the 60 prototypes of bank abababababab" in lines and "temperature 0.04" in lines
    assert not any("bank" in line for line in dict(recipe(label_set(tmp_path / "b", 1), 3))["Labels"])
