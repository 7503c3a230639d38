"""Make the batches of an epoch in threads and processes, some ahead of the trainer."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace

from slg_wds.replay.assembly.batch_builder import BatchBuilder
from slg_wds.replay.assembly.buffers import ImageBuffers
from slg_wds.replay.assembly.context import LoaderContext
from slg_wds.replay.assembly.epoch import Epoch, PlannedBatch
from slg_wds.replay.assembly.workers import Workers
from slg_wds.replay.batch import Batch
from slg_wds.replay.processes.loader_processes import LoaderProcesses, MadeElsewhere
from slg_wds.replay.settings import READERS, Pace

UnderWay = BatchBuilder | MadeElsewhere  # a batch that threads of this process make, or another process


class BatchMaker:
    """Makes batches for the trainer of this process.

    Args:
        context: what they are made from.
        pace: how many are under way, and how many threads make them.
        crops: in a batch.
        processes: that make them beside this one; None: this one makes all.
    """

    def __init__(
        self, context: LoaderContext, pace: Pace, crops: int, processes: LoaderProcesses | None
    ) -> None:
        self._context, self._pace, self._processes = context, pace, processes
        self._buffers = ImageBuffers(crops, context.size, pace.under_way + 1)

    def pin_memory(self) -> None:
        """Make batches in pinned memory from now on; see `ImageBuffers`."""
        self._buffers.pinned = True

    def batches(self, epoch: Epoch, start: int, temperature: float | None) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from number `start` on, with labels of this temperature."""
        context = replace(self._context, temperature=temperature)
        workers = Workers(self._pace.threads, READERS if context.remote else 0, self._pace.together)
        walk = _Walk(context, workers, self._buffers, self._processes)
        planned, under_way, begun = epoch.batches(start), deque[UnderWay](), start
        try:
            context.caches.begin(epoch.spans(), start)
            walk.begin()
            while begun < len(epoch):
                group = list(itertools.islice(planned, self._pace.group))
                under_way.extend(walk.begun(group))
                if begun == start:
                    context.caches.expect()
                begun += len(group)
                while len(under_way) > self._pace.prefetch:
                    yield self._finished(walk, under_way, begun)
            while under_way:
                yield self._finished(walk, under_way, begun)
        finally:
            workers.stop()
            context.caches.end()
            workers.close()
            context.files.clear()
            walk.end()

    def _finished(self, walk: _Walk, under_way: deque[UnderWay], begun: int) -> Batch:
        batch = walk.still_under_way(under_way.popleft()).result(self._pace.deadline)
        self._context.caches.advance(begun - len(under_way))
        return batch.pin_memory() if self._buffers.pinned else batch


class _Walk:
    """Who makes the batches of one walk: threads of this process, or another process.

    Args:
        context: what they are made from.
        workers: the threads.
        buffers: memory for what they make.
        processes: None: this one makes all.
    """

    def __init__(
        self,
        context: LoaderContext,
        workers: Workers,
        buffers: ImageBuffers,
        processes: LoaderProcesses | None,
    ) -> None:
        self._context, self._workers, self._buffers = context, workers, buffers
        self._processes, self._number = processes, 0

    def begin(self) -> None:
        """Take the processes from any walk that has not ended."""
        if self._processes is not None:
            self._number = self._processes.begin(self._context.temperature)

    def begun(self, group: Sequence[PlannedBatch]) -> Sequence[UnderWay]:
        """Let a process make these batches, or the threads of this one."""
        elsewhere = None
        if self._processes is not None:
            elsewhere = self._processes.make(self._number, group, self._context)
        return elsewhere or self._begun_here(group)

    def still_under_way(self, batch: UnderWay) -> UnderWay:
        """Return a batch, begun again if its process dropped it for a newer walk."""
        if isinstance(batch, MadeElsewhere) and batch.dropped:
            return self._begun_here([batch.planned])[0]
        return batch

    def end(self) -> None:
        """Let the processes drop what is under way, unless a newer walk has them."""
        if self._processes is not None:
            self._processes.end(self._number)

    def _begun_here(self, group: Sequence[PlannedBatch]) -> Sequence[BatchBuilder]:
        builders = [BatchBuilder(self._context, batch, self._buffers.take()) for batch in group]
        self._workers.put(builders)
        return builders
