"""How the shards of a set were made, by device, software and settings: where these differ, last bits of labels may."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from slg_wds.errors import SlgWdsError
from slg_wds.inspection.state import THREADS, SetState, read_indexes, spread
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.trailer import read_trailer

SHARDS = 32  # whose trailers are read


@dataclass
class Makers:
    """How some shards of a set were made.

    Attributes:
        examined: number of shards whose trailers were read.
        counts: number of these shards by value, of each thing that their trailers note: device, crops in a forward,
            the versions of packages.
    """

    examined: int = 0
    counts: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, provenance: Mapping[str, Any]) -> None:
        """Count a shard, by the provenance in its trailer."""
        self.examined += 1
        software = provenance.get("software")
        packages = software if isinstance(software, dict) else {}
        for name, value in {**provenance, **packages}.items():
            if isinstance(value, (str, int)):
                self.counts[name][str(value)] += 1

    def differing(self) -> dict[str, dict[str, int]]:
        """Return the counts of what is not the same in all shards."""
        return {name: dict(counts.most_common()) for name, counts in self.counts.items() if len(counts) > 1}


def find_makers(labels: LabelSet, state: SetState) -> Makers:
    """Read the trailers of some shards, evenly spaced. What cannot be read is added to `state.notes`."""
    chosen = spread(state.present, SHARDS)
    read_indexes(labels, state, chosen)

    def read(number: int) -> Mapping[str, Any] | SlgWdsError:
        try:
            return read_trailer(labels, number, state.indexes[number]).provenance
        except SlgWdsError as error:
            return error.located(shard=labels.shard_name(number))

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(read, [number for number in chosen if number in state.indexes]))
    makers = Makers()
    for one in found:
        if isinstance(one, SlgWdsError):
            state.notes.append(f"{one.shard}: {one.message}: run slg-wds verify")
        else:
            makers.add(one)
    return makers
