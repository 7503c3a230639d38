"""Canonical JSON: exact bytes, and what has none."""

from __future__ import annotations

import pytest

from slg_wds.errors import ManifestError
from slg_wds.format.canonical import canonical_json


def test_canonical_json() -> None:
    value = {"b": [1, 1.5, 1e16, None, True], "a": {"é": '\n\x01\x7f"\\'}, "B": (1,)}
    text = '{"B":[1],"a":{"é":"\\n\\u0001\x7f\\"\\\\"},"b":[1,1.5,1e+16,null,true]}'
    assert canonical_json(value) == text.encode()
    for bad in ({"a": float("nan")}, {"a": {1, 2}}, {"a": "\ud800"}, {"a": b""}, {1: 2, "a": 3}):
        with pytest.raises(ManifestError, match="has no JSON"):
            canonical_json(bad)
