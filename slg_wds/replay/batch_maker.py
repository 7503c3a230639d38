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
        planned, under_way, begun = epoch.batches(start), deque[UnderWay](), start
        try:
            context.caches.begin(epoch.spans(), start)
            if self._processes is not None:
                self._processes.begin(temperature)
            while begun < len(epoch):
                group = list(itertools.islice(planned, self._pace.group))
                under_way.extend(self._begun(group, context, workers))
                if begun == start:
                    context.caches.expect()
                begun += len(group)
                while len(under_way) > self._pace.prefetch:
                    yield self._finished(under_way, begun)
            while under_way:
                yield self._finished(under_way, begun)
        finally:
            workers.stop()
            context.caches.end()
            workers.close()
            context.files.clear()
            if self._processes is not None:
                self._processes.end()

    def _begun(
        self, group: Sequence[PlannedBatch], context: LoaderContext, workers: Workers
    ) -> Sequence[UnderWay]:
        """Let a process make these batches, or the threads of this one."""
        elsewhere = None if self._processes is None else self._processes.make(group, context)
        if elsewhere:
            return elsewhere
        builders = [BatchBuilder(context, batch, self._buffers.take()) for batch in group]
        workers.put(builders)
        return builders

    def _finished(self, under_way: deque[UnderWay], begun: int) -> Batch:
        batch = under_way.popleft().result(self._pace.deadline)
        self._context.caches.advance(begun - len(under_way))
        return batch.pin_memory() if self._buffers.pinned else batch
