"""The samples that pass through a WebDataset pipeline, as the stages see them."""

from __future__ import annotations

from typing import Any

PipelineSample = dict[str, Any]


def place_of(sample: PipelineSample) -> dict[str, str | None]:
    """Return where a sample lies, as errors take it: its shard's URL and its key."""
    url, key = sample.get("__url__"), sample.get("__key__")
    return {"url": None if url is None else str(url), "key": None if key is None else str(key)}
