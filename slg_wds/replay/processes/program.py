"""The program of a process that makes batches for a loader in another one."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import pickle
import queue
import threading
from dataclasses import replace
from multiprocessing.connection import Connection

from slg_wds.errors import SlgWdsError
from slg_wds.replay.assembly.batch_builder import BatchBuilder
from slg_wds.replay.assembly.context import LoaderContext
from slg_wds.replay.assembly.workers import Workers
from slg_wds.replay.cache.caches import Caches
from slg_wds.replay.processes.messages import (
    END_WALK,
    READY,
    WALK_ENDED,
    Make,
    Opening,
    Walk,
    packed,
    sendable,
)
from slg_wds.replay.processes.shared_images import SharedImages
from slg_wds.replay.settings import READERS
from slg_wds.replay.sources.files import OpenFiles

GC_THRESHOLD = 50_000  # new objects between two runs of the cycle collector; 700 by default


def main(pipe: int, opening: int) -> None:
    """Make batches until the loader is gone.

    Args:
        pipe: descriptor of the pipe to the loader.
        opening: descriptor of a file that has an Opening, pickled.
    """
    connection = Connection(pipe)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            # Mapped, since all processes that have this descriptor share its position.
            program = Program(pickle.loads(mmap.mmap(opening, 0, prot=mmap.PROT_READ)), connection)
        except SlgWdsError as error:
            connection.send(error)
            return
        # All that exists now is kept, and batches are made without reference cycles: the collector finds nothing.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        connection.send(READY)
        while True:
            program.take(connection.recv())


class Program:
    """Makes the batches that it is told to, in threads, and sends them in this order.

    Raises SlgWdsError as the loader's constructor does: the loader opened all of it before.
    """

    def __init__(self, opening: Opening, pipe: Connection) -> None:
        self._opening, self._pipe = opening, pipe
        self._images = SharedImages(opening.shape, opening.descriptor)
        files, self._caches = OpenFiles(opening.threads + READERS), Caches(opening.cache)
        self._context = LoaderContext.open(
            opening.sets, opening.images, files, self._caches, opening.crops, opening.adaptation
        )
        self._workers: Workers | None = None
        self._under_way: list[BatchBuilder] = []
        self._made: queue.SimpleQueue[BatchBuilder | None] = queue.SimpleQueue()  # None: the walk ended
        threading.Thread(target=self._send, name="slg-send", daemon=True).start()

    def take(self, message: Walk | Make | str) -> None:
        """Do what a message says."""
        if isinstance(message, Walk):
            self._context = replace(self._context, temperature=message.temperature)
            readers = READERS if self._context.remote else 0
            self._workers = Workers(self._opening.threads, readers, self._opening.together)
        elif isinstance(message, Make):
            self._make(message)
        elif message == END_WALK:
            self._end_walk()

    def _make(self, message: Make) -> None:
        assert self._workers is not None  # a walk was begun
        self._caches.learn(message.paths)
        builders = [
            BatchBuilder(self._context, planned, self._images.images(slot))
            for planned, slot in message.planned
        ]
        self._workers.put(builders)
        self._under_way = [one for one in self._under_way if not one.done] + builders
        for one in builders:
            self._made.put(one)

    def _end_walk(self) -> None:
        assert self._workers is not None
        self._workers.stop()
        for builder in self._under_way:
            builder.drop()
        if not self._workers.close():
            # A thread would write to a slot that the loader uses again. The loader starts another process.
            os._exit(1)
        self._under_way.clear()
        self._context.files.clear()
        self._made.put(None)

    def _send(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the loader is gone
            while True:
                builder = self._made.get()
                if builder is None:
                    self._pipe.send(WALK_ENDED)
                    continue
                try:
                    message: bytes | Exception = packed(builder.result(self._opening.deadline))
                except BaseException as error:
                    message = sendable(error)
                self._pipe.send(message)
                del builder, message
