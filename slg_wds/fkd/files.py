"""Bytes of a label file -> its arrays.

A file is torch.save of `[coords, flips, labels]`, three arrays of one row per crop: coords [M, 4] are top, left,
height and width as parts of the image's height and width.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import LabelFileError

MAX_CONTENT_BYTES = 1 << 30
DTYPES = ("f2", "f4", "f8", "i8", "i4", "u1", "b1")
_LOADING = threading.Lock()


@dataclass(frozen=True, eq=False)
class FkdLabels:
    """What one label file holds.

    coords: float32 or float16 [N, 4]; all within [0, 1]. flips: bool [N].
    labels: int64, float32 or float16 of shape [M], [M, 2], [M, 2, k] or [M, C], M <= N: where --num_crops was no
    multiple of --num_seg the original labelled only its first M crops, and its reader draws only among those.
    """

    coords: NDArray[Any]
    flips: NDArray[np.bool_]
    labels: NDArray[Any]

    @property
    def num_crops(self) -> int:
        """Crops that have a label."""
        return len(self.labels)

    @property
    def half(self) -> bool:
        """Whether --use_fp16 wrote it."""
        return self.coords.dtype == np.float16 or self.labels.dtype == np.float16


def read_label_file(data: bytes) -> FkdLabels:
    """Read a label file through torch's restricted unpickler; numpy arrays of numbers are all it may build.

    Raises LabelFileError for everything else: nothing of it is executed.
    """
    _check_archive(data)
    parts = _load(data)
    if not isinstance(parts, list | tuple) or len(parts) != 3:
        raise LabelFileError("it does not hold the three arrays coords, flips and labels")
    coords, flips, labels = (
        _array(part, name) for part, name in zip(parts, ("coords", "flips", "labels"), strict=True)
    )
    if (
        coords.ndim != 2
        or coords.shape[1] != 4
        or flips.shape != coords.shape[:1]
        or labels.ndim not in (1, 2, 3)
    ):
        raise LabelFileError(
            f"coords {coords.shape}, flips {flips.shape} and labels {labels.shape} are not those of crops"
        )
    if not 0 < len(labels) <= len(coords):
        raise LabelFileError(f"it has {len(labels)} labels for {len(coords)} crops")
    if coords.dtype.kind != "f" or not _flags(flips) or labels.dtype.kind not in "fi":
        raise LabelFileError(
            f"dtypes {coords.dtype}, {flips.dtype}, {labels.dtype} are not those of label files"
        )
    # A NaN fails every comparison, so it is refused here too.
    if not (coords.min() >= 0.0 and coords.max() <= 1.0):
        raise LabelFileError(f"crop coordinates from {coords.min()} to {coords.max()} are not within [0, 1]")
    M = len(labels)
    return FkdLabels(coords[:M], flips[:M].astype(np.bool_), labels)


def _check_archive(data: bytes) -> None:
    """That it is a whole zip archive of bounded size. torch.save has written nothing else since 2020."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise LabelFileError(
            f"it is no whole file of torch.save ({len(data)} bytes): {error}",
            hint="it is truncated, damaged or no label file",
        ) from None
    if size > MAX_CONTENT_BYTES:
        raise LabelFileError(f"its content of {size} bytes is over the limit of {MAX_CONTENT_BYTES}")


def _load(data: bytes) -> Any:
    import torch

    with _numpy_allowed():
        try:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler lets many kinds through on damaged bytes
            # Around the reason it explains to users how to switch the protection off: not to be passed on.
            text = re.sub(r"(?s).*WeightsUnpickler error: |.*`False`[^\n]*\n", "", str(error)).strip()
            reason = re.split(r"\n|\. ", text)[0]
            raise LabelFileError(
                f"it cannot be read safely: {type(error).__name__}: {reason[:200]}",
                hint="label files hold numpy arrays only; nothing else is loaded",
            ) from None


@contextlib.contextmanager
def _numpy_allowed() -> Iterator[None]:
    """Let torch's restricted unpickler build numpy arrays of numbers meanwhile.

    Its list of allowed names is the process's, so threads take turns (they would wait for each other anyway: it is
    Python code), and the list is put back as it was.
    """
    from torch import serialization

    with _LOADING:
        before = serialization.get_safe_globals()
        serialization.add_safe_globals(_numpy_names())
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(before)


@functools.cache
def _numpy_names() -> list[Any]:
    allowed: list[Any] = [np.ndarray, np.dtype, *{type(np.dtype(name)) for name in DTYPES}]
    # numpy 1 pickled as numpy.core, numpy 2 as numpy._core; torch tells functions by these two attributes.
    return [
        *allowed,
        *(_reconstruct_as(module) for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    ]


def _reconstruct_as(module: str) -> Callable[..., Any]:
    def reconstruct(kind: Any, shape: Any, code: Any) -> NDArray[Any]:
        """An empty array to be filled; always exactly that, whatever the file asks for."""
        if kind is not np.ndarray or shape != (0,):
            raise LabelFileError("its arrays are not numpy's own")
        empty: NDArray[Any] = np.ndarray((0,), np.int8)
        return empty

    reconstruct.__module__, reconstruct.__name__, reconstruct.__qualname__ = module, *("_reconstruct",) * 2
    return reconstruct


def _array(part: Any, name: str) -> NDArray[Any]:
    if type(part) is not np.ndarray and hasattr(part, "numpy"):  # a tensor
        with contextlib.suppress(TypeError, RuntimeError):  # sparse or quantised
            part = part.detach().numpy()
    if type(part) is not np.ndarray or part.dtype.kind not in "fiub":
        raise LabelFileError(f"its {name} are not an array of numbers")
    return cast("NDArray[Any]", part)


def _flags(flips: NDArray[Any]) -> bool:
    return flips.dtype.kind == "b" or (flips.dtype.kind in "iu" and bool(np.isin(flips, (0, 1)).all()))
