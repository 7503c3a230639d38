"""JSON in one form only. Everything that is hashed, compared or sealed is written and read here."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

from slg_wds.errors import ManifestError, UnsupportedFeatureError

MAX_JSON_BYTES = 1 << 24  # an empty list takes two bytes of JSON and thirty times as many in memory
MAX_DEPTH = 32  # objects and lists within each other: code that walks through them may recurse


def canonical_json(value: Any) -> bytes:
    """Encode a value with sorted keys and no spaces, in UTF-8. Raises ManifestError for NaN or what is not JSON."""
    return _dump(value, separators=(",", ":"))


def pretty_json(value: Any) -> bytes:
    """Encode a value as JSON for people: sorted keys, an indent of two spaces, a newline at the end."""
    return _dump(value, indent=2) + b"\n"


def _dump(value: Any, **layout: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, **layout).encode(
            "utf-8"
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise ManifestError(f"a value has no JSON: {error}") from None


def parse_json(data: bytes | memoryview, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Parse one JSON object.

    Args:
        data: the JSON, in UTF-8.
        max_bytes: the most bytes that `data` may have.

    Raises:
        ManifestError: it is too long or too deep, no JSON, no object, or has NaN or an infinity.
    """
    if len(data) > max_bytes:
        raise ManifestError(f"{len(data)} bytes of JSON are over the limit of {max_bytes}")
    try:
        value = json.loads(str(data, "utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ManifestError(f"JSON of a {type(value).__name__}, not of an object")
    _check_depth(value)
    return value


_PLAIN = frozenset({str, int, float, bool, type(None)})


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = (one.values() if isinstance(one, dict) else one for one in level)
        # Most parts are long lists of plain values: comparing sets of types is faster than a test of each value.
        level = [
            part
            for parts in inside
            if not _PLAIN.issuperset(map(type, parts))
            for part in parts
            if isinstance(part, dict | list)
        ]
        if not level:
            return
    raise ManifestError(f"JSON nested more than {MAX_DEPTH} deep")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def seal(fields: dict[str, Any]) -> dict[str, Any]:
    """Return `fields` with a field "crc32": the CRC-32 of their canonical JSON."""
    return {**fields, "crc32": zlib.crc32(canonical_json(fields))}


def unseal(data: bytes | memoryview, encode: Callable[[Any], bytes] = canonical_json) -> dict[str, Any]:
    """Parse sealed JSON and check its seal.

    Args:
        data: the JSON.
        encode: what wrote it. Encoding the fields again must give the same bytes, so that no changed byte goes
            unnoticed, not even a space.

    Returns:
        The fields without "crc32".

    Raises:
        ManifestError: the bytes are no JSON object, or were changed.
    """
    value = parse_json(data)
    fields = {name: field for name, field in value.items() if name != "crc32"}
    if value.get("crc32") != zlib.crc32(canonical_json(fields)):
        raise ManifestError("its CRC-32 does not match: damaged, or changed by hand")
    if encode(value) != data:
        raise ManifestError("its bytes are not as a writer orders them: damaged, or changed by hand")
    return fields


def check_version(what: str, fields: dict[str, Any], version: int) -> None:
    """Check the version of a file.

    Args:
        what: the file, for messages.
        fields: its fields.
        version: the version that this reader knows.

    Raises:
        ManifestError: the file has no version.
        UnsupportedFeatureError: it has another one.
    """
    found = fields.get("version")
    if type(found) is not int:
        raise ManifestError(f"{what} is not a map with a version")
    if found != version:
        raise UnsupportedFeatureError(
            f"the version of {what} is {found}, this reader knows {version}", hint="update slg-wds"
        )


def typed(fields: dict[str, Any], name: str, kind: type) -> Any:
    """Return the field `name`. Raises ManifestError if its type is not exactly `kind`, or for a negative int."""
    value = fields.get(name)
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise ManifestError(f"{name} is {brief(value)}, not of type {kind.__name__}")
    return value


def strings(fields: dict[str, Any], name: str) -> list[str]:
    """Return the field `name`, a list of strings. Raises ManifestError for anything else."""
    values = typed(fields, name, list)
    if not all(isinstance(value, str) for value in values):
        raise ManifestError(f"{name} does not hold strings alone")
    return list(values)


def brief(value: Any) -> str:
    """Return the repr of a value read from a file, at most 80 characters, for a message."""
    text = repr(value[:80] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
