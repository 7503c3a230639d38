"""Provenance: what is recorded about how labels were made, but never compared."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version

from slg_wds import __version__

SOFTWARE = ("slg-wds", "numpy", "zstandard", "webdataset")  # used by every command that makes labels


def versions(names: tuple[str, ...] = SOFTWARE) -> dict[str, str]:
    """Return the version of each of these distributions, in their order. This one may run without being installed."""
    return {name: __version__ if name == "slg-wds" else version(name) for name in names}


def now() -> str:
    """Return the time in UTC to the second, as in 2024-05-01T12:00:00+00:00."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
