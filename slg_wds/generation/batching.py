"""Full forwards: crops of successive images of one shard, cut in threads into one buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from slg_wds.concurrency.prefetch import window
from slg_wds.generation.decoding import Item, LeftOut, Prepared, ShardEnd
from slg_wds.transforms.crops import cut

if TYPE_CHECKING:
    import torch

CROPS_PER_PIECE = 8  # one task of a cutting thread: about 2 ms of work at 224 pixels
MAX_BUFFERED = 1 << 28  # bytes of crops cut ahead, beyond the two batches that are always allowed


@dataclass(frozen=True)
class Span:
    """Crops first..first+count of an image lie in rows start..start+count of a batch."""

    image: Prepared
    first: int
    start: int
    count: int


@dataclass
class CropBatch:
    """One forward: a uint8 tensor [num_seg, 3, S, S] for each input size of the teachers.

    `ended` is the shard whose last crops these are, or None; rows past the last span are padding.
    """

    inputs: list[torch.Tensor]
    spans: list[Span] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    ended: int | None = None
    pieces: list[Future[None]] = field(default_factory=list)

    @property
    def filled(self) -> int:
        """Rows that hold crops."""
        return self.spans[-1].start + self.spans[-1].count if self.spans else 0

    def wait(self) -> None:
        """Return when every crop is cut; raises what a thread raised."""
        for piece in self.pieces:
            piece.result()
        self.pieces.clear()


class Buffers:
    """Batches' memory, used again and again: one allocation for each batch in flight, pinned for a GPU."""

    def __init__(self, inputs: list[tuple[int, str]], num_seg: int, pinned: bool) -> None:
        self.inputs = inputs
        self.num_seg = num_seg
        self.pinned = pinned
        self._free: list[list[torch.Tensor]] = []

    @property
    def bytes_each(self) -> int:
        """Bytes of one batch."""
        return sum(self.num_seg * 3 * size * size for size, _ in self.inputs)

    def take(self) -> list[torch.Tensor]:
        """Return the tensors of one batch, their content undefined."""
        return self._free.pop() if self._free else [self._allocate(size) for size, _ in self.inputs]

    def give_back(self, tensors: list[torch.Tensor]) -> None:
        """Return tensors of a batch whose forward is done."""
        self._free.append(tensors)

    def _allocate(self, size: int) -> torch.Tensor:
        import torch

        memory = torch.empty((self.num_seg, size, size, 3), dtype=torch.uint8, pin_memory=self.pinned)
        return memory.permute(0, 3, 1, 2)  # [N, 3, S, S] as channels_last


def full_batches(items: Iterable[Item], buffers: Buffers, pool: ThreadPoolExecutor) -> Iterator[CropBatch]:
    """Pack crops into batches of exactly `num_seg` rows, never across shards; the cutting is under way, not done.

    The last batch of a shard is padded, and comes even when it holds nothing, so that the shard's end is told.
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
            while first < len(item.boxes):
                batch = batch or CropBatch(buffers.take())
                first += _add(batch, item, first, buffers, pool)
                if batch.filled == buffers.num_seg:
                    yield batch
                    batch = None


def _add(batch: CropBatch, image: Prepared, first: int, buffers: Buffers, pool: ThreadPoolExecutor) -> int:
    """Start cutting as many crops as fit and return how many."""
    start = batch.filled
    count = min(buffers.num_seg - start, len(image.boxes) - first)
    batch.spans.append(Span(image, first, start, count))
    for tensor, (_, interpolation) in zip(batch.inputs, buffers.inputs, strict=True):
        for offset in range(0, count, CROPS_PER_PIECE):
            crops = slice(first + offset, first + min(offset + CROPS_PER_PIECE, count))
            rows = tensor[start + offset : start + min(offset + CROPS_PER_PIECE, count)]
            boxes, flips = image.boxes[crops], image.flips[crops]
            batch.pieces.append(pool.submit(cut, image.pixels, boxes, flips, rows, interpolation))
    return count


def ahead(batches: Iterator[CropBatch], count: int) -> Iterator[CropBatch]:
    """Yield the batches with `count` more of them always begun, each waited for until it is cut."""
    for batch in window(batches, count):
        batch.wait()
        yield batch


def batches_ahead(buffers: Buffers, workers: int) -> int:
    """How many batches to cut ahead: enough work for every thread, within MAX_BUFFERED bytes, at least two."""
    pieces = -(-buffers.num_seg // CROPS_PER_PIECE) * len(buffers.inputs)
    wanted = 1 + -(-2 * workers // pieces)
    return max(2, min(wanted, MAX_BUFFERED // buffers.bytes_each))
