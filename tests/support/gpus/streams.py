"""The streams of an imitated GPU end with their test."""

from __future__ import annotations

import functools

from slg_wds.concurrency import copy_stream


def own_streams(monkeypatch) -> None:
    """Let copies have streams of this test's GPU, not those of another one."""
    made = copy_stream._stream_of.__wrapped__
    monkeypatch.setattr(copy_stream, "_stream_of", functools.cache(made))
