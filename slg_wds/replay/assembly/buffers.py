"""Memory of batches, used again when the trainer has let go of a batch."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class ImageBuffers:
    """Buffers for uint8 images [B, 3, S, S], channels_last.

    A fresh buffer of tens of MB costs a page fault per 4 KiB, more than all Python code of a batch. So memory is used
    again, but only when nobody can still read it:

    * Ordinary memory comes back when the last tensor that shares it dies, however long the trainer keeps a batch.
    * Pinned memory is torch's own. Torch gives it out again when the last tensor that shares it has died and every copy
      to a GPU that was begun from it is done. So `batch.images.to("cuda", non_blocking=True)` needs no care: the batch
      may be dropped at once. It holds for copies by torch; whoever reads the memory by other means keeps the batch.
    """

    def __init__(self, batch: int, size: int, keep: int) -> None:
        self._shape, self._keep = (batch, size, size, 3), keep
        self._free: list[torch.Tensor] = []
        self.pinned = False

    def take(self) -> torch.Tensor:
        """Return a buffer that nobody uses; what it holds is left from before."""
        import torch

        if self.pinned:
            buffer = torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)
        else:
            buffer = self._ordinary()
        return buffer.permute(0, 3, 1, 2)

    def _ordinary(self) -> torch.Tensor:
        import torch

        try:
            memory = self._free.pop()
        except IndexError:
            memory = torch.empty(self._shape, dtype=torch.uint8)
        # The tensor below keeps this view alive, and so do all that share its storage.
        view = memory.numpy()[:]
        weakref.finalize(view, self._back, memory).atexit = False
        return torch.from_numpy(view)

    def _back(self, memory: torch.Tensor) -> None:
        # Without a lock: the collector may call this anywhere, in `take` too. One buffer too many does no harm.
        if len(self._free) < self._keep:
            self._free.append(memory)
