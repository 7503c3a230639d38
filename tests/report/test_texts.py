"""Numbers as a page shows them."""

from __future__ import annotations

import pytest

from slg_wds.report.writing.numbers import number, percent


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
