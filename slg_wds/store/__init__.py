"""Where labels and images lie: a folder, or a prefix in object storage, under one small interface.

Local folders go through the operating system; s3:// gs:// az:// http:// https:// go through obstore, which is
imported when the first such store is used. This package imports neither torch nor the format.
"""

from __future__ import annotations

from collections.abc import Mapping

from slg_wds.store.base import MAX_BYTES, TEMPORARY_AGE, Data, Entry, Store
from slg_wds.store.location import Location
from slg_wds.store.urls import expand_braces, join, split_url

__all__ = [
    "MAX_BYTES",
    "TEMPORARY_AGE",
    "Data",
    "Entry",
    "Location",
    "Store",
    "expand_braces",
    "join",
    "open_store",
    "split_url",
]

_NO_OPTIONS: Mapping[str, str] = {}


def open_store(url: str, store_options: Mapping[str, str] = _NO_OPTIONS) -> Store:
    """Return the store at a URL, without touching or contacting it yet.

    Args:
        url: a path (`~` too), file://, s3://, gs://, az://, http:// or https://.
        store_options: settings of object storage (endpoint, region, ..., timeout, retry_timeout, max_retries); ignored
            for a folder.

    Raises:
        UsageError: a URL or option that no store takes.
    """
    return Location(url, store_options).open()
