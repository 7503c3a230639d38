"""How some shards of a set were made, by their trailers. `verify`, which reads every shard, compares all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from slg_wds.errors import SlgWdsError
from slg_wds.format.manifest.index import ShardIndex
from slg_wds.inspection.state import THREADS, SetState, read_indexes, spread
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import Makers, made_by

SHARDS = 32  # whose trailers are read


def find_makers(labels: LabelSet, state: SetState) -> Makers:
    """Read the trailers of some shards, evenly spaced. What cannot be read is added to `state.notes`."""
    chosen = spread(state.present, SHARDS)
    read_indexes(labels, state, chosen)
    there = [number for number in chosen if number in state.indexes]
    makers = Makers()
    for one in how_made(labels, there, state.indexes.__getitem__):
        if isinstance(one, SlgWdsError):
            state.note(str(one.shard), f": {one.message}: run slg-wds verify")
        else:
            makers.add(one)
    return makers


def how_made(
    labels: LabelSet, numbers: Sequence[int], index_of: Callable[[int], ShardIndex]
) -> list[dict[str, str] | SlgWdsError]:
    """Return what `made_by` does for each of these shards, or the error of one that cannot be read.

    Args:
        labels: the set.
        numbers: of the shards.
        index_of: gives a shard's index.
    """

    def read(number: int) -> dict[str, str] | SlgWdsError:
        try:
            return made_by(labels.trailer(number, index_of(number)).provenance)
        except SlgWdsError as error:
            return error.located(shard=labels.shard_name(number))

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(read, numbers))
