"""What a loader and its processes say to each other."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from slg_wds.errors import ReplayError, SlgWdsError
from slg_wds.labels import LabelAdaptation
from slg_wds.labels.movable import unrepeated
from slg_wds.replay.assembly.epoch import PlannedBatch
from slg_wds.replay.batch import Batch
from slg_wds.replay.cache.caches import CachedPaths, CacheOptions
from slg_wds.replay.crop_input import CropInput
from slg_wds.replay.sources.label_sets import LabelSets
from slg_wds.store import Location

if TYPE_CHECKING:
    import torch


class Opening(NamedTuple):
    """All that a process needs before its first batch.

    Attributes:
        sets, images, crops, adaptation: see `LoaderContext.open`.
        cache: of remote files.
        threads: that decode and cut. together: images that one of them takes at a time.
        deadline: seconds for a batch.
        shape: of `SharedImages`. descriptor: of their memory.
    """

    sets: LabelSets
    images: Location | None
    cache: CacheOptions
    crops: CropInput
    adaptation: LabelAdaptation | None
    threads: int
    together: int
    deadline: float
    shape: tuple[int, ...]
    descriptor: int


class Walk(NamedTuple):
    """An epoch begins, or goes on, whose labels have this temperature; None: as they were made."""

    temperature: float | None


class Make(NamedTuple):
    """Batches to be made together, each with the slot of its images; the local paths of cached remote files."""

    planned: list[tuple[PlannedBatch, int]]
    paths: CachedPaths


READY, WALK_ENDED = "ready", "walk ended"  # said by a process
END_WALK = "end walk"  # said to a process: what is under way is not wanted any more


def packed(batch: Batch) -> bytes:
    """Return a batch without its images, which lie in a slot. Raises an error if a tensor is not on the CPU."""
    stream = io.BytesIO()
    _MessagePickler(stream, batch.images).dump(batch)
    return stream.getvalue()


def unpacked(data: bytes, images: torch.Tensor) -> Any:
    """Return the batch of `packed`, with these images."""
    return _Unpickler(io.BytesIO(data), images).load()


def sendable(error: BaseException) -> Exception:
    """Return the error, or one that says the same and can be pickled."""
    if isinstance(error, (SlgWdsError, MemoryError)):
        return error
    return ReplayError(f"{type(error).__name__}: {error}")


class _MessagePickler(pickle.Pickler):
    """Tensors as arrays of numpy: torch's own way takes some 100 us each, or a file descriptor."""

    def __init__(self, stream: io.BytesIO, images: torch.Tensor) -> None:
        super().__init__(stream, protocol=5)
        self._images = images

    def persistent_id(self, one: Any) -> str | None:
        return "images" if one is self._images else None

    def reducer_override(self, one: Any) -> Any:
        import torch

        if not isinstance(one, torch.Tensor):
            return NotImplemented
        return _tensor, (unrepeated(one).numpy(), tuple(one.shape))


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, images: torch.Tensor) -> None:
        super().__init__(stream)
        self._images = images

    def persistent_load(self, _: Any) -> torch.Tensor:
        return self._images


def _tensor(array: npt.NDArray[Any], shape: tuple[int, ...]) -> torch.Tensor:
    import torch

    return torch.from_numpy(array).expand(shape)
