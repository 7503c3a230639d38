"""JSON of one form only: what is hashed, compared or sealed goes through here."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

from slg_wds.errors import ManifestError, UnsupportedFeatureError

MAX_JSON_BYTES = 1 << 24  # a list in JSON takes two bytes, in memory thirty times as many
MAX_DEPTH = 32  # objects and lists within each other: those who walk through them may recurse


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, no NaN. Raises ManifestError for what JSON does not hold exactly."""
    return _dump(value, separators=(",", ":"))


def pretty_json(value: Any) -> bytes:
    """The same for people: sorted keys, two spaces of indent, a newline at the end."""
    return _dump(value, indent=2) + b"\n"


def _dump(value: Any, **layout: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, **layout).encode(
            "utf-8"
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise ManifestError(f"a value has no JSON: {error}") from None


def parse_json(data: bytes | memoryview, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """One JSON object. Raises ManifestError for anything else, NaN and infinities among it."""
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
        # Most are long lists of plain values: their types tell faster than a look at each.
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
    """`fields` and "crc32", the CRC-32 of their canonical JSON."""
    return {**fields, "crc32": zlib.crc32(canonical_json(fields))}


def unseal(data: bytes | memoryview, encode: Callable[[Any], bytes] = canonical_json) -> dict[str, Any]:
    """The fields of sealed JSON, "crc32" taken off. `encode` must give back the very bytes of `data`.

    So no byte can change unnoticed, not even a space. Raises ManifestError.
    """
    value = parse_json(data)
    fields = {name: field for name, field in value.items() if name != "crc32"}
    if value.get("crc32") != zlib.crc32(canonical_json(fields)):
        raise ManifestError("its CRC-32 does not match: damaged, or changed by hand")
    if encode(value) != data:
        raise ManifestError("its bytes are not those of a writer: damaged, or changed by hand")
    return fields


def check_version(what: str, fields: dict[str, Any], version: int) -> None:
    """That `fields` are of this version: ManifestError where there is none, else UnsupportedFeatureError."""
    found = fields.get("version")
    if type(found) is not int:
        raise ManifestError(f"{what} is not a map with a version")
    if found != version:
        raise UnsupportedFeatureError(
            f"the version of {what} is {found}, this reader knows {version}", hint="update slg-wds"
        )


def typed(fields: dict[str, Any], name: str, kind: type) -> Any:
    """The field `name`, of exactly that type, an int not negative. Raises ManifestError."""
    value = fields.get(name)
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise ManifestError(f"{name} is {brief(value)}, not of type {kind.__name__}")
    return value


def strings(fields: dict[str, Any], name: str) -> list[str]:
    """The field `name`, a list of strings. Raises ManifestError."""
    values = typed(fields, name, list)
    if not all(isinstance(value, str) for value in values):
        raise ManifestError(f"{name} does not hold strings alone")
    return list(values)


def brief(value: Any) -> str:
    """A value read from a file as a message may show it."""
    text = repr(value[:80] if isinstance(value, str | bytes) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
