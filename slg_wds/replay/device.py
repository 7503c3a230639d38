"""Batches on the training device, normalised there."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from slg_wds.concurrency.copy_stream import CopyStream
from slg_wds.concurrency.devices import device_here
from slg_wds.errors import UsageError
from slg_wds.labels.movable import densely
from slg_wds.replay.batch import Batch
from slg_wds.replay.pairs import LoaderView, PairLoader
from slg_wds.transforms.normalisation import Normalisation

if TYPE_CHECKING:
    from slg_wds.replay.loader import SoftLabelLoader


class DeviceLoader(LoaderView):
    """A loader whose batches are on a device: images of `dtype`, channels_last, (pixel / 255 - mean) / std.

    On a GPU a batch is copied from pinned memory on a stream of its own while the one before is trained on; nothing
    waits on the host. The state is the inner loader's and counts batches that were handed over.

    Args:
        loader: gives the batches.
        device: where they go.
        mean: what normalisation subtracts from each of the three channels, for pixels in 0..1.
        std: what it divides them by.
        dtype: of the images; None for float32.

    Raises:
        UsageError: there is no such device, or mean or std are not three numbers each.
    """

    def __init__(
        self,
        loader: SoftLabelLoader,
        device: torch.device | str,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype | None,
    ) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UsageError(f"mean {mean} and std {std} are not three numbers each, std above 0")
        super().__init__(loader)
        self.dtype = dtype or torch.float32
        self.normalised = Normalisation(mean, std, device_here(device), self.dtype)
        # The GPU itself, not "the current one": each thread that walks has another.
        self.device = self.normalised.device
        self._cuda = self.device.type == "cuda"
        self._copies: CopyStream | None = None
        if self._cuda:
            loader.pin_memory()

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"DeviceLoader({self.loader!r}, images {kind}, on {self.device})"

    def __iter__(self) -> Iterator[Batch]:
        return self.loader.walk(self._ahead if self._cuda else self._here)

    def pairs(self) -> PairLoader:
        """See SoftLabelLoader."""
        return PairLoader(self.loader, self)

    def _here(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        for batch in self.loader.batches(epoch, start):
            moved = batch.to(self.device)
            yield replace(moved, images=self.normalised(moved.images))

    def _ahead(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        """Yield each batch when the next one's copy has begun. Torch keeps pinned memory while it is copied from."""
        self._copies = copies = self._copies or CopyStream(self.device)
        waiting: deque[tuple[Batch, torch.cuda.Event]] = deque()
        try:
            for batch in self.loader.batches(epoch, start):
                waiting.append(copies.begin(partial(batch.to, self.device, non_blocking=True)))
                del batch
                if len(waiting) > 1:
                    yield self._handed(copies, *waiting.popleft())
            while waiting:
                yield self._handed(copies, *waiting.popleft())
        finally:
            copies.finish()

    def _handed(self, copies: CopyStream, batch: Batch, copied: torch.cuda.Event) -> Batch:
        """Return a batch normalised, in memory of the trainer's stream, which the trainer may let go of at any time."""
        copies.hand_over(copied)
        cloned = densely(torch.clone)
        own = batch.changed(lambda one: self.normalised(one) if one is batch.images else cloned(one))
        copies.give_back(batch)
        return own
