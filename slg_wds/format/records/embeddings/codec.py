"""The embeddings of a record <-> its columns.

Shapes: M crops of a record, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from slg_wds.format.records.columns import decode_column, decode_pieces, encode_column, encode_pieces
from slg_wds.format.records.embeddings.by_name import AnyEmbedding
from slg_wds.format.records.embeddings.fields import embedding_kinds
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding
from slg_wds.format.records.embeddings.low_rank_codec import decode_low_rank_embedding, low_rank_columns
from slg_wds.format.records.embeddings.plain import DTYPES, Embedding, check_numbers


def embedding_columns(embeddings: Mapping[str, AnyEmbedding] | None) -> dict[str, list[bytes]]:
    """Encode the columns of a record that has these embeddings."""
    columns: dict[str, list[bytes]] = {}
    for number, one in enumerate((embeddings or {}).values()):
        if isinstance(one, LowRankEmbedding):
            columns |= low_rank_columns(one, number)
            continue
        bits = one.stored.view(f"<u{one.stored.itemsize}")
        columns[f"embedding_{number}"] = encode_pieces(bits)
        if one.scales is not None:
            columns[f"scales_{number}"] = encode_column(one.scales.astype("<f4").view("<u4"))
    return columns


def decode_embeddings(fields: Mapping[str, Any], at: Any) -> dict[str, AnyEmbedding]:
    """Decode the embeddings of some crops of a record, by name.

    Args:
        fields: of the record, checked, with its columns.
        at: an index into the crops.

    Raises:
        RecordError: a column is damaged, or a number is not one that may be stored.
    """
    found: dict[str, AnyEmbedding] = {}
    for number, (name, dim, values, blocks) in enumerate(embedding_kinds(fields)):
        if blocks is not None:
            found[name] = decode_low_rank_embedding(fields["columns"], number, blocks)[at]
        else:
            found[name] = _decoded(fields, number, dim, values, at)
    return found


def _decoded(fields: Mapping[str, Any], number: int, dim: int, values: str, at: Any) -> Embedding:
    M, columns, dtype = fields["num_crops"], fields["columns"], DTYPES[values]
    pieces = decode_pieces(columns.get(f"embedding_{number}"), (M, dim), np.arange(M)[at], dtype.itemsize)
    stored, scales = pieces.view(dtype)[..., 0], None
    if values == "int8":
        scales = decode_column(columns.get(f"scales_{number}"), (M,), at, 4).view("<f4")
    check_numbers(stored, scales)
    return Embedding(stored, scales)
