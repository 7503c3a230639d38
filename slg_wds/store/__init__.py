"""Stores: a folder, or a prefix in object storage, behind one small interface.

    base.py         the interface, `Store`
    location.py     a URL and its options -> a store
    urls.py         the parts of URLs, brace patterns
    local.py        a folder, through the operating system
    remote.py       s3:// gs:// az:// http:// https://, through obstore, which is imported at their first use
    client.py       obstore's clients: options, deadlines
    credentials.py  the files of `aws configure`, for s3://
    faults.py       obstore's errors -> ours
    stops.py        for how long this process was stopped: no store could answer then
    whole_file.py   an output file that the user named, written completely or not at all

Enters: URLs, options, names and bytes. Leaves: bytes, listings and StoreErrors. May import files, errors and masking;
neither torch nor format/.
"""

from __future__ import annotations

from collections.abc import Mapping

from slg_wds.store.base import MAX_BYTES, TEMPORARY_AGE, Data, Entry, Store
from slg_wds.store.location import NO_OPTIONS, Location
from slg_wds.store.urls import expand_braces, join, split_url

__all__ = [
    "MAX_BYTES",
    "NO_OPTIONS",
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


def open_store(url: str, store_options: Mapping[str, str] = NO_OPTIONS) -> Store:
    """Return the store at a URL, without touching or contacting it yet.

    Args:
        url: a path (`~` too), file://, s3://, gs://, az://, http:// or https://.
        store_options: settings of object storage (endpoint, region, ..., timeout, retry_timeout, max_retries); ignored
            for a folder.

    Raises:
        UsageError: a URL or option that no store takes.
    """
    return Location(url, store_options).open()
