"""The bytes of a record -> its map of fields, whose names and limits FORMAT.md gives.

Only lists and maps are checked here: how many there are decides how much memory bytes can take. `checks.py` looks at
what they hold.
"""

from __future__ import annotations

from typing import Annotated, TypedDict

from msgspec import Meta

from slg_wds.errors import RecordError
from slg_wds.format.packed import MAX_MAP, Flat, Frames, Single, Unpacker

VERSION = 1

_Kinds = Single | Annotated[list[Flat], Meta(max_length=16)]
_Blocks = Single | Annotated[list[_Kinds], Meta(max_length=16)]
_Columns = Flat | Annotated[dict[str, Frames], Meta(max_length=MAX_MAP)]


class _RecordShape(TypedDict, total=False):
    version: Flat
    key: Flat
    path: Flat
    target: Flat
    height: Flat
    width: Flat
    num_crops: Flat
    k: Flat
    num_classes: Flat
    coding: Flat
    full: Flat
    num_palette: Flat
    num_tail: Flat
    tail_scale: Flat
    tail_rest: Flat
    image_crc32: Flat
    source_crc32: Flat
    kl_mean: Flat
    kl_worst: Flat
    kl_against: Flat
    kl_parents: Flat
    views: Flat
    mixing: Flat
    embeddings: _Kinds
    lowrank: _Blocks
    columns: _Columns


unpack_fields = Unpacker(_RecordShape, VERSION, "record", RecordError)
