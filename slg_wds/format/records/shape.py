"""The bytes of a record -> its map of fields, whose names and limits FORMAT.md gives.

Types and ranges of single fields are checked here, and how many lists and maps there are, which decides how much memory
bytes can take. `checks.py` looks at what lists hold, and whether fields agree.
"""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import msgspec
from msgspec import Meta

from slg_wds.errors import RecordError
from slg_wds.format.packed import MAX_MAP, Flat, Frames, Single, Unpacker

VERSION = 1

# Limits of what a small file may unpack to: zstd makes a thousand zeros one byte.
MAX_PALETTE = 1 << 20
MAX_TAIL = 1 << 18  # a quarter of the most crops

_Side = Annotated[int, Meta(ge=1, lt=1 << 31)]
_Class = Annotated[int, Meta(ge=0, lt=1 << 31)]
_Classes = Annotated[int, Meta(ge=0, le=1 << 24)]
_Share = Annotated[float, Meta(ge=0, le=2)]
_Checksum = Annotated[int, Meta(ge=0, lt=1 << 32)]
_Kinds = Single | Annotated[list[Flat], Meta(max_length=16)]
_Blocks = Single | Annotated[list[_Kinds], Meta(max_length=16)]
_Columns = Annotated[dict[str, Frames], Meta(max_length=MAX_MAP)]


class _Required(TypedDict):
    version: int
    key: str
    path: str
    target: _Class | None
    height: _Side
    width: _Side
    num_crops: Annotated[int, Meta(ge=0, le=1 << 20)]
    k: _Classes
    num_classes: _Classes
    coding: str
    full: bool
    num_palette: Annotated[int, Meta(ge=0, le=MAX_PALETTE)]
    num_tail: Annotated[int, Meta(ge=0, le=MAX_TAIL)]
    tail_scale: _Share
    tail_rest: _Share


class _RecordFields(_Required, total=False):
    image_crc32: _Checksum
    source_crc32: _Checksum
    kl_mean: Flat
    kl_worst: Flat
    kl_against: Flat
    kl_parents: Flat
    views: Flat
    mixing: Flat
    embeddings: _Kinds
    lowrank: _Blocks


class _RecordShape(_RecordFields):
    columns: _Columns


unpack_fields = Unpacker(_RecordShape, VERSION, "record", RecordError)


def check_shape(fields: dict[str, Any]) -> None:
    """Raise RecordError unless these fields, without columns, can be those of a record."""
    try:
        msgspec.convert(fields, _RecordFields)
    except msgspec.ValidationError as error:
        raise RecordError(f"the fields are not those of a record: {error}") from None
