"""Numbers as a page shows them."""

from __future__ import annotations


def number(value: float) -> str:
    """Write 1234567 as 1,234,567."""
    return f"{value:,.0f}"


def percent(share: float, digits: int = 1) -> str:
    """Write 0.123 as 12.3%. A share that would round to 0% or 100% without being it gets as many digits as show that.

    Args:
        share: in 0..1.
        digits: digits after the point.
    """
    text = f"{100 * share:.{digits}f}%"
    if share > 0 and float(text[:-1]) == 0:
        return f"{100 * share:.1g}%"
    if share < 1 and float(text[:-1]) == 100:
        exponent = f"{100 * (1 - share):.0e}".partition("e")[2]
        return f"{100 * share:.{-int(exponent)}f}%"
    return text
