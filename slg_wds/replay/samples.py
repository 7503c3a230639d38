"""The samples that pass through a WebDataset pipeline, as the stages see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slg_wds.errors import ImageError, RecordError

PipelineSample = dict[str, Any]


def place_of(sample: Mapping[str, Any]) -> dict[str, str | None]:
    """Return where a sample lies, as errors take it: its shard's URL and its key."""
    url, key = sample.get("__url__"), sample.get("__key__")
    return {"url": None if url is None else str(url), "key": None if key is None else str(key)}


def given_by(stage: str, sample: Mapping[str, Any], name: str) -> Any:
    """Return what an earlier stage adds to every sample. Raises RecordError where the pipeline lacks that stage."""
    if name not in sample:
        raise RecordError(
            f"the sample has no {name!r}", **place_of(sample), hint=f"put the stage {stage} before this one"
        )
    return sample[name]


def bytes_given(sample: Mapping[str, Any], data: Any) -> bytes:
    """Return what a user's function gave as the bytes of a sample's image.

    Raises:
        ImageError: it gave something else.
    """
    try:
        return data if isinstance(data, bytes) else memoryview(data).tobytes()
    except TypeError:
        what = "None" if data is None else f"a {type(data).__name__}"
        raise ImageError(
            f"the function image= returned {what}, not the bytes of the image", **place_of(sample)
        ) from None
