"""A URL with the options of its store: what functions take to open a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slg_wds.masking import masked
from slg_wds.store.base import Store
from slg_wds.store.local import LocalStore
from slg_wds.store.urls import path_of, scheme_of

NO_OPTIONS: Mapping[str, str] = {}


@dataclass(frozen=True, repr=False)
class Location:
    """A URL together with the options of its object storage. Picklable; its repr hides the options.

    Attributes:
        url: a path (`~` too), file://, s3://, gs://, az://, http:// or https://; where the caller expands them, also a
            brace pattern of such URLs.
        options: endpoint, region, ..., timeout, retry_timeout, max_retries. Ignored for a folder.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict)

    def open(self) -> Store:
        """Return the store at this URL, without touching or contacting it yet.

        Raises:
            UsageError: a URL or option that no store takes.
        """
        if scheme_of(self.url) == "file":
            return LocalStore(path_of(self.url))
        from slg_wds.store.remote import RemoteStore

        return RemoteStore(self.url, self.options)

    def at(self, url: str) -> Location:
        """Return another URL with the same options."""
        return Location(url, self.options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({masked(self.url)!r})"
