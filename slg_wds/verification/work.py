"""Shares the shards of a set among processes. Each process reads its next shards while it checks the present ones."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.concurrency.threads import use_one_thread
from slg_wds.errors import LabelSetError, SlgWdsError, StoreUnavailableError
from slg_wds.labelset.opening import labels_at
from slg_wds.store import Location
from slg_wds.verification.images import ImageChecks
from slg_wds.verification.problems import ShardReport
from slg_wds.verification.shard import ShardChecks

ATTEMPTS = 3  # shards in a row that cannot be read; then the store counts as gone
GROUP_BYTES, GROUP_SHARDS = 1 << 20, 64  # small shards are checked together, up to so many bytes or shards
COLLECT_AFTER = 1 << 17  # new objects before Python looks for cycles; a shard's records are some thousands
ShardBytes = bytes | SlgWdsError


@dataclass(frozen=True)
class VerifyTask:
    """The work of one verification, as every process gets it. Picklable.

    Attributes:
        location: the label set.
        digest: the set's digest when the verification began.
        numbers: numbers of the shards to check.
        indexed: True if a missing index part is a problem.
        max_pixels: largest embedded image that is decoded; 0 to decode none.
        images: where the images to compare are; None to compare none.
    """

    location: Location
    digest: str
    numbers: tuple[int, ...]
    indexed: bool
    max_pixels: int
    images: Location | None

    def __call__(self, worker: int, count: int) -> Iterator[ShardReport]:
        """Check every `count`-th shard, from number `worker` on, and yield its report.

        Memory: two shards, or twice 1 MB of small ones.

        Args:
            worker: number of this process, from 0.
            count: number of processes.

        Raises:
            StoreUnavailableError: several shards in a row could not be read.
            LabelSetError: another set is at the URL by now.
        """
        keep_freed_memory()
        labels = labels_at(self.location, allow_incomplete=True, embeddings=True)
        if count > 1 and self.max_pixels and labels.identity.embed_images:
            use_one_thread()  # torch's; only decoding uses them, and processes share the cores
        if labels.digest != self.digest:
            raise LabelSetError(
                "the set has been replaced by another meanwhile",
                url=self.location.url,
                hint="verify it again",
            )
        images = None if self.images is None else ImageChecks(labels, self.images)
        checks = ShardChecks(labels, self.indexed, self.max_pixels, images)
        groups = grouped((number, checks.read(number)) for number in self.numbers[worker::count])
        with ThreadPoolExecutor(1, "slg-read") as pool, _few_collections():
            ahead = pool.submit(next, groups, ())
            while shards := ahead.result():
                ahead = pool.submit(next, groups, ())
                yield from checks.check_all(shards)


@contextlib.contextmanager
def _few_collections() -> Iterator[None]:
    """Make Python look for cycles more rarely.

    A shard's records are thousands of small objects, which are freed when the next shard comes. Looking through them as
    often as usual would take a twelfth of the time.
    """
    usual = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def grouped(reads: Iterable[tuple[int, ShardBytes]]) -> Iterator[list[tuple[int, ShardBytes]]]:
    """Yield large shards one at a time, small ones in groups.

    Raises:
        StoreUnavailableError: ATTEMPTS shards in a row could not be read.
    """
    group: list[tuple[int, ShardBytes]] = []
    size = failed = 0
    for number, data in reads:
        failed = failed + 1 if isinstance(data, StoreUnavailableError) else 0
        if failed == ATTEMPTS and isinstance(data, StoreUnavailableError):
            raise data
        group.append((number, data))
        size += 0 if isinstance(data, SlgWdsError) else len(data)
        if size >= GROUP_BYTES or len(group) == GROUP_SHARDS:
            yield group
            group, size = [], 0
    if group:
        yield group
