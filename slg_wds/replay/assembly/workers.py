"""The threads that make batches."""

from __future__ import annotations

import atexit
import itertools
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from slg_wds.concurrency.threads import use_one_thread
from slg_wds.replay.assembly.batch_builder import BatchBuilder, SampleBytes
from slg_wds.replay.assembly.filling import Part, fill_images, fill_labels
from slg_wds.replay.settings import RECORDS_TOGETHER

JOIN_SECONDS = 5.0


class _LabelTask(NamedTuple):
    """Images of batches whose labels, then pixels are to be filled in; the bytes of a single one may be `loaded`."""

    parts: list[Part]
    loaded: SampleBytes | None = None


class _PixelTask(NamedTuple):
    """Images of a batch whose labels are there, and whose pixels are to be filled in."""

    part: Part
    loaded: SampleBytes | None = None


class _ReadTask(NamedTuple):
    """Images of a batch and of one shard, whose bytes are to come from a network: with the shard if it is `coming`."""

    builder: BatchBuilder
    images: list[int]
    coming: bool


class Workers:
    """Threads that decode and cut, and others that wait for a network in their stead.

    Threads are daemons: one that waits for a server which no longer answers does not keep the process from ending.
    All others are ended before the interpreter is, which aborts where it ends under a thread inside of torch.

    Args:
        threads: that decode and cut.
        readers: that wait for a network.
        together: images that a thread decodes and cuts at a time.
    """

    def __init__(self, threads: int, readers: int, together: int) -> None:
        self._together = together
        self._queue: queue.SimpleQueue[_LabelTask | _PixelTask | None] = queue.SimpleQueue()
        self._remote: queue.SimpleQueue[_ReadTask | None] = queue.SimpleQueue()
        self._stopped = False
        started = threading.Semaphore(0)
        self._threads = [self._thread(self._work, f"slg-replay-{n}", started) for n in range(threads)]
        self._readers = [self._thread(self._read, f"slg-read-{n}") for n in range(readers)]
        _start_single_threaded(self._threads, started)
        for reader in self._readers:
            reader.start()
        atexit.register(self.close)

    def put(self, builders: Sequence[BatchBuilder]) -> None:
        """Take the images of some batches. Their records are decoded together, up to RECORDS_TOGETHER at a time."""
        here = [(builder, i) for builder in builders for i in self._here(builder)]
        for first in range(0, len(here), RECORDS_TOGETHER):
            by_batch = itertools.groupby(here[first : first + RECORDS_TOGETHER], itemgetter(0))
            self._queue.put(_LabelTask([(builder, [i for _, i in some]) for builder, some in by_batch]))

    def _here(self, builder: BatchBuilder) -> list[int]:
        """Return the images of a batch that can be read without waiting for a network; let others wait for the rest.

        Those for which all is on its way in one shard wait for it together.
        """
        here, together = [], defaultdict(list)
        for i in builder.present:
            shard = builder.samples[i].shard
            if not self._readers or builder.context.ready(shard):
                here.append(i)
            elif (coming := builder.context.caches.coming(shard)) and not builder.context.never_cached:
                together[shard].append(i)
            else:
                self._remote.put(_ReadTask(builder, [i], coming))
        for images in together.values():
            self._remote.put(_ReadTask(builder, images, coming=True))
        return here

    def stop(self) -> None:
        """Begin nothing any more."""
        self._stopped = True

    def close(self) -> bool:
        """End the threads; images that are under way are finished, others dropped.

        Returns:
            Whether all have ended; one that still works may write to the batch that it works on.
        """
        atexit.unregister(self.close)
        self.stop()
        for _ in self._threads:
            self._queue.put(None)
        for _ in self._readers:
            self._remote.put(None)
        end = time.monotonic() + JOIN_SECONDS
        for thread in (*self._threads, *self._readers):
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in (*self._threads, *self._readers))

    @staticmethod
    def _thread(target: Any, name: str, *arguments: Any) -> threading.Thread:
        return threading.Thread(target=target, name=name, args=arguments, daemon=True)

    def _work(self, started: threading.Semaphore) -> None:
        use_one_thread()
        started.release()
        while (task := self._queue.get()) is not None:
            if not self._stopped:
                self._do(task)
            del task  # a batch in a waiting thread's hand would keep its buffer

    def _do(self, task: _LabelTask | _PixelTask) -> None:
        if isinstance(task, _PixelTask):
            fill_images(*task)
            return
        fill_labels(*task)
        first, *more = [
            _PixelTask((builder, images[at : at + self._together]), task.loaded)
            for builder, images in task.parts
            for at in range(0, len(images), self._together)
        ]
        for one in more:
            self._queue.put(one)
        fill_images(*first)

    def _read(self) -> None:
        while (task := self._remote.get()) is not None:
            if not self._stopped:
                self._read_one(task)
            del task

    def _read_one(self, task: _ReadTask) -> None:
        builder, images, coming = task
        if coming and builder.wait(images[0]):
            self._queue.put(_LabelTask([(builder, images)]))
            return
        for i in images:
            loaded = None if self._stopped else builder.load(i)
            if loaded is not None:
                self._queue.put(_LabelTask([(builder, [i])], loaded))


def _start_single_threaded(threads: list[threading.Thread], started: threading.Semaphore) -> None:
    """Start threads that set one thread for themselves, which also moves the default of all later ones: set it back."""
    import torch

    before = torch.get_num_threads()
    for thread in threads:
        thread.start()
    for _ in threads:
        started.acquire()
    torch.set_num_threads(before)
