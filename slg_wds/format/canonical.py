"""Canonical JSON: one value, one string of bytes. Everything that is compared or hashed goes through it."""

from __future__ import annotations

import json
import zlib
from typing import Any, NoReturn

from slg_wds.errors import ManifestError

MAX_JSON_BYTES = 1 << 28


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN. Raises ManifestError for what JSON cannot hold exactly."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ManifestError(f"a value has no JSON: {error}") from None


def pretty_json(value: Any) -> bytes:
    """The same value for people: indented, sorted keys, a newline at the end."""
    canonical_json(value)
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def parse_json(data: bytes | memoryview) -> dict[str, Any]:
    """One JSON object. Raises ManifestError for anything else, NaN and infinities among it."""
    if len(data) > MAX_JSON_BYTES:
        raise ManifestError(f"{len(data)} bytes of JSON are over the limit of {MAX_JSON_BYTES}")
    try:
        value = json.loads(str(data, "utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ManifestError(f"JSON of a {type(value).__name__}, not of an object")
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def seal(fields: dict[str, Any]) -> dict[str, Any]:
    """`fields` with "crc32", the CRC-32 of their canonical JSON, as every JSON file of a label set carries."""
    return {**fields, "crc32": zlib.crc32(canonical_json(fields))}


def unseal(data: bytes | memoryview, encode: Any = canonical_json) -> dict[str, Any]:
    """The fields of sealed JSON, without "crc32". `encode` must give back the very bytes.

    So no byte can change unnoticed, not even a space or the order of names. Raises ManifestError.
    """
    value = parse_json(data)
    fields = {name: field for name, field in value.items() if name != "crc32"}
    if value.get("crc32") != zlib.crc32(canonical_json(fields)):
        raise ManifestError("the CRC-32 does not match: it was damaged or changed by hand")
    if encode(value) != data:
        raise ManifestError("the bytes are not those that a writer gives: damaged or changed by hand")
    return fields
