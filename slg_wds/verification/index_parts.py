"""Checks the index part beside a shard: it must be what the shard itself gives."""

from __future__ import annotations

from collections.abc import Iterator

from slg_wds.errors import FormatError, NotFoundError, StoreError, UnsupportedFeatureError
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.index import ShardIndex, decode_index, encode_index, index_of
from slg_wds.format.manifest.plan import PlannedShard
from slg_wds.format.shards.shard import Shard
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.objects import INDEX
from slg_wds.verification.problems import INDEX_PART, UNREADABLE, UNSUPPORTED


def index_problems(
    labels: LabelSet, shard: Shard, part: PlannedShard, indexed: bool
) -> Iterator[tuple[str, str]]:
    """Yield the kind of each problem of a shard's index part, and what is wrong. A missing one counts if `indexed`."""
    name = f"{INDEX}/{part.name}"
    wanted = index_of(shard, part)
    try:
        data = labels.store.read(name, MAX_JSON_BYTES)
        found = wanted if data == encode_index(wanted) else decode_index(data)
    except NotFoundError:
        if indexed:
            yield INDEX_PART, "its index part is missing"
    except UnsupportedFeatureError as error:
        yield UNSUPPORTED, f"its index part: {error.message}"
    except FormatError as error:
        yield INDEX_PART, f"its index part is damaged: {error.message}"
    except StoreError as error:
        yield UNREADABLE, f"its index part: {error.message}"
    else:
        if found != wanted:
            yield INDEX_PART, f"its index part is not the shard's: {_index_difference(found, wanted)}"


def _index_difference(found: ShardIndex, wanted: ShardIndex) -> str:
    for name in ("set_digest", "shard", "name", "bytes", "sha256", "left_out", "image_shard"):
        mine, theirs = getattr(found, name), getattr(wanted, name)
        if mine != theirs:
            return f"{name} is {str(mine)[:70]}, where {str(theirs)[:70]} belongs"
    return "the places of its members differ"
