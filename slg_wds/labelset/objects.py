"""The objects of a label set in its store: what they are called, and errors that name the one that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from slg_wds.errors import FormatError

PLAN, DESCRIPTION, INFO, INDEX = "plan", "slg.json", "_info.json", "index"
READERS = 32  # threads for many small reads, which mostly wait

D = TypeVar("D")
T = TypeVar("T")


def located(decode: Callable[[D], T], data: D, url: str) -> T:
    """Return `decode(data)`; a FormatError from it gets the URL that the data came from."""
    try:
        return decode(data)
    except FormatError as error:
        raise error.located(url=url) from None
