"""Full forwards: threads cut crops of successive images of one shard into one buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slg_wds.concurrency.prefetch import window
from slg_wds.generation.decoding import Item, Prepared, ShardEnd
from slg_wds.generation.opening import LeftOut
from slg_wds.teachers.faults import device_faults

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


@dataclass(frozen=True)
class CropBatch:
    """The crops of one forward, every one of them cut. Rows after the last span are padding.

    Attributes:
        inputs: for each input size S of the teachers, the same crops as uint8 [num_seg, 3, S, S].
        spans: which crops lie in which rows.
        filled: number of rows that hold crops.
        left_out: the images that the shard leaves out. The last batch of a shard has all of them, the others none.
        ended: the number of the shard, if these are its last crops; else None.
    """

    inputs: list[torch.Tensor]
    spans: list[Span]
    filled: int
    left_out: list[LeftOut]
    ended: int | None


@dataclass
class CutsUnderWay:
    """A batch that threads are still cutting. It becomes a CropBatch, which a forward takes, only when all is cut.

    Attributes:
        tensors: the inputs of the batch. What they hold is undefined so far.
        spans, filled, left_out, ended: as of `CropBatch`.
        pieces: the tasks that cut the crops.
    """

    tensors: list[torch.Tensor]
    spans: list[Span] = field(default_factory=list)
    filled: int = 0
    pieces: list[Future[None]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    ended: int | None = None

    def wait(self) -> CropBatch:
        """Return the batch when every crop is cut. Raise the error of a thread that failed."""
        for piece in self.pieces:
            piece.result()
        return CropBatch(self.tensors, self.spans, self.filled, self.left_out, self.ended)


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

        with device_faults(torch.device("cpu"), f"no memory for {self.num_seg:,} crops of {size} pixels"):
            memory = torch.empty((self.num_seg, size, size, 3), dtype=torch.uint8, pin_memory=self.pinned)
        return memory.permute(0, 3, 1, 2)  # [N, 3, S, S] as channels_last


def full_batches(
    items: Iterable[Item], buffers: Buffers, pool: ThreadPoolExecutor, ahead: int
) -> Iterator[CropBatch]:
    """Pack crops into batches of exactly `num_seg` rows. No batch has crops of two shards.

    The last batch of a shard is padded with zeros. It is yielded even if it has no crops, since it marks the end of the
    shard.

    Args:
        items: images of shard after shard, each shard followed by its end.
        buffers: memory for the batches.
        pool: threads that cut.
        ahead: how many further batches are being cut while one is used; see `batches_ahead`.
    """
    for batch in window(_begun(items, buffers, pool), ahead):
        yield batch.wait()


def _begun(items: Iterable[Item], buffers: Buffers, pool: ThreadPoolExecutor) -> Iterator[CutsUnderWay]:
    """Start to cut the batches, one after the other as they are asked for."""
    batch: CutsUnderWay | None = None
    left_out: list[LeftOut] = []
    for item in items:
        if isinstance(item, LeftOut):
            left_out.append(item)
        elif isinstance(item, ShardEnd):
            batch = batch or CutsUnderWay(buffers.take())
            batch.left_out, left_out = left_out, []
            batch.ended = item.shard
            for tensor in batch.tensors:
                tensor[batch.filled :] = 0
            yield batch
            batch = None
        else:
            first = 0
            while first < len(item.crops):
                batch = batch or CutsUnderWay(buffers.take())
                first += _add(batch, item, first, buffers, pool)
                if batch.filled == buffers.num_seg:
                    yield batch
                    batch = None


def _add(batch: CutsUnderWay, image: Prepared, first: int, buffers: Buffers, pool: ThreadPoolExecutor) -> int:
    """Start to cut as many crops of an image as fit, from `first` on. Return how many."""
    start = batch.filled
    count = min(buffers.num_seg - start, len(image.crops) - first)
    batch.spans.append(Span(image, first, start, count))
    batch.filled += count
    for tensor, (_, interpolation) in zip(batch.tensors, buffers.inputs, strict=True):
        for offset in range(0, count, CROPS_PER_PIECE):
            crops = slice(first + offset, first + min(offset + CROPS_PER_PIECE, count))
            rows = tensor[start + offset : start + min(offset + CROPS_PER_PIECE, count)]
            batch.pieces.append(pool.submit(image.cut, crops, rows, interpolation))
    return count


def batches_ahead(buffers: Buffers, workers: int) -> int:
    """Return how many batches to cut ahead: at least two, and enough work for all threads within MAX_BUFFERED bytes."""
    pieces = -(-buffers.num_seg // CROPS_PER_PIECE) * len(buffers.inputs)
    enough = 1 + -(-2 * workers // pieces)
    return max(2, min(enough, MAX_BUFFERED // buffers.bytes_each))
