"""Full forwards: threads cut crops of successive images of one shard into one buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slg_wds.concurrency.prefetch import window
from slg_wds.generation.decoding import Item, Prepared, ShardEnd
from slg_wds.generation.opening import LeftOut

if TYPE_CHECKING:
    import torch

CROPS_PER_PIECE = 8  # one task of a cutting thread: about 2 ms of work at 224 pixels
MAX_BUFFERED = 1 << 28  # bytes of crops cut ahead, beyond the two batches that are always allowed


@dataclass(frozen=True)
class Span:
    """Crops [first, first + count) of an image are rows [start, start + count) of a batch."""

    image: Prepared
    first: int
    start: int
    count: int


@dataclass
class CropBatch:
    """The crops of one forward. Rows after the last span are padding.

    Attributes:
        inputs: for each input size S of the teachers, the same crops as uint8 [num_seg, 3, S, S].
        spans: which crops lie in which rows.
        left_out: the images that the shard leaves out. The last batch of a shard has all of them, the others none.
        ended: the number of the shard, if these are its last crops; else None.
        pieces: the tasks that cut the crops.
    """

    inputs: list[torch.Tensor]
    spans: list[Span] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    ended: int | None = None
    pieces: list[Future[None]] = field(default_factory=list)

    @property
    def filled(self) -> int:
        """Number of rows that hold crops."""
        return self.spans[-1].start + self.spans[-1].count if self.spans else 0

    def wait(self) -> None:
        """Return when every crop is cut. Raise the error of a thread that failed."""
        for piece in self.pieces:
            piece.result()
        self.pieces.clear()


class Buffers:
    """Memory for batches, which is used again after a forward. There is one allocation for each batch in flight.

    Args:
        inputs: (input size in pixels, interpolation) of each distinct input of the teachers.
        num_seg: crops in one forward.
        pinned: allocate pinned memory, which a GPU reads faster.
    """

    def __init__(self, inputs: list[tuple[int, str]], num_seg: int, pinned: bool) -> None:
        self.inputs = inputs
        self.num_seg = num_seg
        self.pinned = pinned
        self._free: list[list[torch.Tensor]] = []

    @property
    def bytes_each(self) -> int:
        """Size of one batch in bytes."""
        return sum(self.num_seg * 3 * size * size for size, _ in self.inputs)

    def take(self) -> list[torch.Tensor]:
        """Return tensors for one batch. Their content is undefined."""
        return self._free.pop() if self._free else [self._allocate(size) for size, _ in self.inputs]

    def give_back(self, tensors: list[torch.Tensor]) -> None:
        """Accept the tensors of a batch whose forward is done, to use them again."""
        self._free.append(tensors)

    def _allocate(self, size: int) -> torch.Tensor:
        import torch

        memory = torch.empty((self.num_seg, size, size, 3), dtype=torch.uint8, pin_memory=self.pinned)
        return memory.permute(0, 3, 1, 2)  # [N, 3, S, S] as channels_last


def full_batches(items: Iterable[Item], buffers: Buffers, pool: ThreadPoolExecutor) -> Iterator[CropBatch]:
    """Pack crops into batches of exactly `num_seg` rows, and start to cut them. No batch has crops of two shards.

    The last batch of a shard is padded with zeros. It is yielded even if it has no crops, since it marks the end of the
    shard.

    Args:
        items: images of shard after shard, each shard followed by its end.
        buffers: memory for the batches.
        pool: threads that cut.

    Yields:
        Batches whose crops may still be in the making; see `CropBatch.wait`.
    """
    batch: CropBatch | None = None
    left_out: list[LeftOut] = []
    for item in items:
        if isinstance(item, LeftOut):
            left_out.append(item)
        elif isinstance(item, ShardEnd):
            batch = batch or CropBatch(buffers.take())
            batch.left_out, left_out = left_out, []
            batch.ended = item.shard
            for tensor in batch.inputs:
                tensor[batch.filled :] = 0
            yield batch
            batch = None
        else:
            first = 0
            while first < len(item.crops):
                batch = batch or CropBatch(buffers.take())
                first += _add(batch, item, first, buffers, pool)
                if batch.filled == buffers.num_seg:
                    yield batch
                    batch = None


def _add(batch: CropBatch, image: Prepared, first: int, buffers: Buffers, pool: ThreadPoolExecutor) -> int:
    """Start to cut as many crops of an image as fit, from `first` on. Return how many."""
    start = batch.filled
    count = min(buffers.num_seg - start, len(image.crops) - first)
    batch.spans.append(Span(image, first, start, count))
    for tensor, (_, interpolation) in zip(batch.inputs, buffers.inputs, strict=True):
        for offset in range(0, count, CROPS_PER_PIECE):
            crops = slice(first + offset, first + min(offset + CROPS_PER_PIECE, count))
            rows = tensor[start + offset : start + min(offset + CROPS_PER_PIECE, count)]
            batch.pieces.append(pool.submit(image.cut, crops, rows, interpolation))
    return count


def ahead(batches: Iterator[CropBatch], count: int) -> Iterator[CropBatch]:
    """Yield each batch once it is cut, while the next `count` batches are being cut."""
    for batch in window(batches, count):
        batch.wait()
        yield batch


def batches_ahead(buffers: Buffers, workers: int) -> int:
    """Return how many batches to cut ahead: at least two, and enough work for all threads within MAX_BUFFERED bytes."""
    pieces = -(-buffers.num_seg // CROPS_PER_PIECE) * len(buffers.inputs)
    enough = 1 + -(-2 * workers // pieces)
    return max(2, min(enough, MAX_BUFFERED // buffers.bytes_each))
