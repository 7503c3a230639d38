"""How some shards of a set were made, by their trailers. `verify`, which reads every shard, compares all."""

from __future__ import annotations

from slg_wds.errors import SlgWdsError
from slg_wds.inspection.state import SetState, read_indexes
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import SHARDS, Makers, how_made, spread


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
