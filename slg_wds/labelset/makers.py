"""How the shards of a set were made: by which device, software, settings, and code of private teachers.

Where these differ, the last bits of labels may. Where the code does, the labels themselves may.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slg_wds.console import first_few
from slg_wds.errors import SlgWdsError
from slg_wds.format.manifest.index import ShardIndex
from slg_wds.labelset.objects import READERS
from slg_wds.labelset.stored import StoredSet

MADE_BY = "device, software, settings"  # what is compared, in words
CODE = "code of "  # begins the names of what `made_by` returns for private teachers
_BETWEEN = "+"  # stands between the digests of several codes of one name
SHARDS = 32  # whose trailers are read where not all are
MOST_NAMES, MOST_CHARACTERS = 32, 200  # of a trailer: a set may come from anybody, and every shard's are kept


def made_by(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return what a shard's trailer notes of how it was made, by name.

    That is the device, settings, versions of packages, and the first digits of the digests of private teachers' code.

    Args:
        provenance: as the trailer has it.
    """
    software, code = provenance.get("software"), provenance.get("code")
    packages = software if isinstance(software, dict) else {}
    codes = code_by_name(code) if isinstance(code, dict) else {}
    found = {
        name: str(value)
        for name, value in {**provenance, **packages, **codes}.items()
        if isinstance(value, (str, int))
    }
    pairs = list(found.items())[:MOST_NAMES]
    return {name[:MOST_CHARACTERS]: value[:MOST_CHARACTERS] for name, value in pairs}


def how_made(
    labels: StoredSet, numbers: Sequence[int], index_of: Callable[[int], ShardIndex]
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

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, numbers))


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """Choose at most `count` of the numbers, evenly spaced, the first and the last included."""
    if len(numbers) <= count:
        return list(numbers)
    places = np.linspace(0, len(numbers) - 1, count).round().astype(np.int64)
    return [numbers[at] for at in places.tolist()]


def code_by_name(code: Mapping[str, str]) -> dict[str, str]:
    """Return the first digits of the digests of teachers' code, as `made_by` names them."""
    return {
        f"{CODE}{name}": _BETWEEN.join(one[:12] for one in str(digests).split(_BETWEEN))
        for name, digests in code.items()
    }


def code_of_all(provenances: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return what a shard that is made of other shards notes of private teachers' code: `code`, or nothing.

    Where these shards were made by several codes of one name, it notes all of them.

    Args:
        provenances: of those shards, as their trailers have them.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    for one in provenances:
        code = one.get("code")
        for name, digests in (code if isinstance(code, dict) else {}).items():
            found[name].update(str(digests).split(_BETWEEN))
    code = {name: _BETWEEN.join(sorted(digests)) for name, digests in sorted(found.items())}
    return {"code": code} if code else {}


def consequence(name: str) -> str:
    """Return what it may mean for labels that shards differ in this."""
    if name.startswith(CODE):
        return (
            "their labels are of different functions, unless only comments or the like were changed: "
            "slg-wds verify -a MODEL --teacher IMAGES asks the teacher again"
        )
    return "the last bits of their labels may too"


@dataclass
class Makers:
    """How shards of a set were made.

    Attributes:
        examined: number of shards whose trailers were read.
        counts: number of these shards by value, of each thing that their trailers note; see `made_by`.
    """

    examined: int = 0
    counts: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, made: Mapping[str, str]) -> None:
        """Count a shard, by what `made_by` returns for it."""
        self.examined += 1
        for name, value in made.items():
            self.counts[name][value] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: how many shards were examined, and the counts of what differs between them."""
        differing = {
            name: dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
            for name, counts in self.counts.items()
            if len(counts) > 1
        }
        return {"examined_shards": self.examined, "differing": differing}


def shards_by_value(counts: Mapping[str, int]) -> str:
    """Return how many shards have which value, for a message: `NVIDIA H100: 30, cpu AVX2: 2`."""
    return first_few([f"{value}: {number:,}" for value, number in counts.items()])
