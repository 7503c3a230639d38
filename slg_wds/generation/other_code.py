"""Warns if a run adds to shards that were made by other code of a private teacher.

A set's identity holds the weights of such a teacher. It holds the code only of a teacher without weights, since a
changed comment must not keep a run from going on with its set. So an edited forward with the same weights is accepted,
and this warning is the only sign of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from slg_wds.labelset.makers import CODE, SHARDS, code_by_name, how_made, shards_by_value, spread

if TYPE_CHECKING:
    from slg_wds.generation.job import Job
    from slg_wds.labelset.labelset import LabelSet


def warnings_of_code(job: Job, missing: Sequence[int]) -> list[str]:
    """Return a warning for each private teacher if other code made shards that are there already.

    Looked at are some shards of the set that the run joins and of the one that it extends.

    Args:
        job: what the worker has open.
        missing: numbers of the shards that the run makes.
    """
    own = code_by_name(job.teacher.code())
    if not own or not missing:
        return []
    extended = job.extension.labels if job.extension else None
    found = _warnings(job.labels, missing, own)
    return found if extended is None else [*found, *_warnings(extended, extended.missing(), own)]


def _warnings(labels: LabelSet, missing: Sequence[int], own: dict[str, str]) -> list[str]:
    chosen = spread(sorted(set(range(labels.num_shards)) - set(missing)), SHARDS)
    read = how_made(labels, chosen, labels.index)
    made = [one for one in read if isinstance(one, dict)]  # of a damaged shard `verify` tells
    found = []
    for name, now in own.items():
        counts = Counter(one[name] for one in made if name in one)
        if set(counts) - {now}:
            found.append(
                f"warning: {name.removeprefix(CODE)} is not the code that made shards of {labels.url}: now {now}, "
                f"there {shards_by_value(counts)}. If it computes something else, the labels are of two functions: "
                "stop, and restore the code or choose another --save-path. If only comments changed, go on"
            )
    return found
