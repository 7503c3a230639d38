"""The shards of a set shared out among processes, each reading ahead of what it checks."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.concurrency.threads import use_one_thread
from slg_wds.errors import LabelSetError, SlgWdsError, StoreUnavailableError
from slg_wds.labelset.labelset import labels_at
from slg_wds.store import Location
from slg_wds.verification.images import ImageChecks
from slg_wds.verification.shard import ShardChecks, ShardReport

ATTEMPTS = 3  # shards in a row that a store may fail to give, before it is taken for gone
TOGETHER, MOST_TOGETHER = 1 << 20, 64  # bytes and number of small shards that are checked as one
COLLECTED = 1 << 17  # more objects than at the last look for cycles, for another; a shard has some thousands
Read = bytes | SlgWdsError


@dataclass(frozen=True)
class VerifyTask:
    """What every process of one run shares; picklable. numbers: of the shards to check. digest: of the set.
    images: where those to compare are."""

    location: Location
    digest: str
    numbers: tuple[int, ...]
    indexed: bool
    max_pixels: int
    images: Location | None

    def __call__(self, worker: int, count: int) -> Iterator[ShardReport]:
        """Check every `count`-th shard and yield its report. Memory: two shards, or twice 1 MB of small ones.

        Raises StoreUnavailableError where the store has gone, LabelSetError where the set is another one by now.
        """
        keep_freed_memory()
        labels = labels_at(self.location, allow_incomplete=True)
        if count > 1 and self.max_pixels and labels.identity.embed_images:
            use_one_thread()  # of torch, which only decoding needs
        if labels.digest != self.digest:
            raise LabelSetError(
                "the set has been replaced meanwhile", url=self.location.url, hint="verify it again"
            )
        images = None if self.images is None else ImageChecks(labels, self.images)
        checks = ShardChecks(labels, self.indexed, self.max_pixels, images)
        read = _gathered((number, checks.read(number)) for number in self.numbers[worker::count])
        with ThreadPoolExecutor(1, "slg-read") as pool, _few_collections():
            ahead = pool.submit(next, read, ())
            while shards := ahead.result():
                ahead = pool.submit(next, read, ())
                yield from checks.check_all(shards)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Have Python look for cycles only among very many objects.

    A shard's records are thousands of small ones, freed as the next shard comes: to look through them as often as usual
    takes a twelfth of the time.
    """
    usual = gc.get_threshold()
    gc.set_threshold(COLLECTED, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _gathered(reads: Iterable[tuple[int, Read]]) -> Iterator[list[tuple[int, Read]]]:
    """Shards by themselves, small ones several at a time. Raises StoreUnavailableError where a store has gone."""
    together: list[tuple[int, Read]] = []
    size = failed = 0
    for number, data in reads:
        failed = failed + 1 if isinstance(data, StoreUnavailableError) else 0
        if failed == ATTEMPTS and isinstance(data, StoreUnavailableError):
            raise data
        together.append((number, data))
        size += 0 if isinstance(data, SlgWdsError) else len(data)
        if size >= TOGETHER or len(together) == MOST_TOGETHER:
            yield together
            together, size = [], 0
    if together:
        yield together
