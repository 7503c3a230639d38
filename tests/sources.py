"""Image sources opened by plain keywords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slg_wds.config import SourceConfig
from slg_wds.images import FolderSource, ShardSource, open_source

OF_OPEN_SOURCE = ("default_split", "need_targets", "on_error")


def opened(url: Path | str, **options: Any) -> FolderSource | ShardSource:
    """`open_source` with the fields of SourceConfig as keywords, and `store_options` as a mapping."""
    store = options.pop("store_options", {})
    direct = {name: options.pop(name) for name in OF_OPEN_SOURCE if name in options}
    pairs = tuple(f"{name}={value}" for name, value in store.items())
    return open_source(str(url), SourceConfig(store_option=pairs, **options), **direct)
