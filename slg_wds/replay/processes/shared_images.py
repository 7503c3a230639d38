"""Memory for the images of batches that several processes see."""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.errors import UsageError

if TYPE_CHECKING:
    import torch


class SharedImages:
    """So many slots, each for the images of one batch: uint8 [B, 3, S, S], channels_last.

    The memory is that of a file without a name, which goes when the last process that sees it has ended. /dev/shm does
    not limit it, of which containers often have only 64 MB.

    Args:
        shape: (slots, B, S, S, 3).
        descriptor: of the file, in a process that was given it; None makes a new one.

    Raises:
        UsageError: the system knows no such files.
    """

    def __init__(self, shape: Sequence[int], descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = memory_file("slg-wds images")
            os.ftruncate(descriptor, int(np.prod(shape)))
        self.shape, self.descriptor = tuple(shape), descriptor
        weakref.finalize(self, os.close, descriptor)
        self._memory = np.frombuffer(mmap.mmap(descriptor, int(np.prod(shape))), np.uint8).reshape(shape)
        self._free = list(range(shape[0]))

    def take(self, count: int) -> list[int]:
        """Return so many slots that nobody uses; none at all if there are fewer."""
        return [self._free.pop() for _ in range(count)] if len(self._free) >= count else []

    def give_back(self, slot: int) -> None:
        """Note that nobody uses a slot any more."""
        self._free.append(slot)

    def images(self, slot: int) -> torch.Tensor:
        """Return the images of a slot."""
        import torch

        return torch.from_numpy(self._memory[slot]).permute(0, 3, 1, 2)

    def lent(self, slot: int) -> torch.Tensor:
        """Return the images of a slot, which is given back when the last tensor that shares them has died."""
        import torch

        view = self._memory[slot]  # the tensor keeps it alive, and so do all that share its storage
        weakref.finalize(view, self.give_back, slot).atexit = False
        return torch.from_numpy(view).permute(0, 3, 1, 2)


def memory_file(name: str) -> int:
    """Return the descriptor of a new file in memory. Raises UsageError where the system has none."""
    if not hasattr(os, "memfd_create"):
        raise UsageError(
            f"processes= needs files in memory, which {sys.platform} does not have",
            hint="leave it out: threads= of this process make the batches",
        )
    return os.memfd_create(name)
