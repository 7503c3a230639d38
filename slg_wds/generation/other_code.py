"""Whether the code of private teachers is what made the shards that are there already.

The identity has the weights of such a teacher, and its code only where it has none: a comment is code too, and must not
part two runs. So another function of the same weights would go on with a set without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from slg_wds.errors import SlgWdsError
from slg_wds.inspection.state import spread
from slg_wds.labelset.makers import CODE, code_by_name, made_by, shards_by_value
from slg_wds.labelset.trailer import read_trailer

if TYPE_CHECKING:
    from slg_wds.generation.job import Job
    from slg_wds.labelset.labelset import LabelSet

SHARDS, THREADS = 32, 16  # whose trailers are read


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
    with ThreadPoolExecutor(THREADS) as pool:
        made = list(pool.map(lambda number: _made(labels, number), chosen))
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


def _made(labels: LabelSet, number: int) -> dict[str, str]:
    try:
        return made_by(read_trailer(labels, number, labels.index(number)).provenance)
    except SlgWdsError:  # a damaged shard: `verify` says so
        return {}
