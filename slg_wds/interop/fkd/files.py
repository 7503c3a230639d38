"""Bytes of a label file <-> its arrays.

A file is what torch.save makes of `[coords, flips, labels]`, three arrays with one row per crop. Rows of coords [M, 4]
are top, left, height and width as shares of the image's height and width.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import dataclass
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.console import counted
from slg_wds.errors import LabelFileError
from slg_wds.interop.pickles import load_arrays

MAX_CONTENT_BYTES = 1 << 27  # full labels of 1,000 crops over 22,000 classes are 88 MB
MAX_ENTRIES = 64  # three arrays take 3 to 7
_ENTRY = b"PK\x01\x02"  # begins the entry of each part in the directory of a zip file


@dataclass(frozen=True, eq=False)
class FkdLabels:
    """What one label file holds of its M labelled crops.

    A file may have further crops without labels: the original labels only whole forwards of --num_seg crops, and its
    reader draws only among labelled crops. Those without labels are not kept here.

    Attributes:
        coords: float32 or float16 [M, 4], all within [0, 1].
        flips: bool [M].
        labels: int64, float32 or float16 of shape [M], [M, 2], [M, 2, k] or [M, C].
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
        """Whether it holds float16, as FKD's --use_fp16 writes."""
        return self.coords.dtype == np.float16 or self.labels.dtype == np.float16


def read_label_file(data: bytes) -> FkdLabels:
    """Read a label file. Nothing in it is executed, and the memory used is bounded by its size.

    Args:
        data: the bytes of the file.

    Raises:
        LabelFileError: the file holds anything else than the three arrays of numbers that belong there.
    """
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
            f"coords {coords.shape}, flips {flips.shape} and labels {labels.shape} do not fit together"
        )
    if not 0 < len(labels) <= len(coords):
        raise LabelFileError(f"it has {counted(len(labels), 'label')} for {counted(len(coords), 'crop')}")
    if coords.dtype.kind != "f" or not _flags(flips) or labels.dtype.kind not in "fi":
        raise LabelFileError(
            f"dtypes {coords.dtype}, {flips.dtype}, {labels.dtype} are not those of label files"
        )
    # A NaN fails every comparison, so it is refused here too.
    if not (coords.min() >= 0.0 and coords.max() <= 1.0):
        raise LabelFileError(f"crop coordinates from {coords.min()} to {coords.max()} are not within [0, 1]")
    M = len(labels)
    return FkdLabels(coords[:M], flips[:M].astype(np.bool_), labels)


def encode_label_file(coords: NDArray[Any], flips: NDArray[np.bool_], labels: NDArray[Any]) -> bytes:
    """Return the bytes of a label file as the original saves it, readable with numpy 1 and numpy 2.

    Args:
        coords: float32 or float16 [M, 4].
        flips: bool [M].
        labels: as in `FkdLabels`.
    """
    import torch

    stream = io.BytesIO()
    torch.save([coords, flips.copy(), labels], stream, pickle_module=_OF_ANY_NUMPY)
    return stream.getvalue()


class _Pickler(pickle.Pickler):
    """Writes numpy arrays under a module name that numpy 1 and numpy 2 both know.

    numpy 2 would write a name that numpy 1 does not know, which the original was written for.
    """

    def __init__(self, file: IO[bytes], protocol: int) -> None:
        self._file, self._own = file, io.BytesIO()
        super().__init__(self._own, protocol)

    def dump(self, value: Any) -> None:
        super().dump(value)
        # The name is written once, before the content of the first array; later uses refer to it by number.
        named = self._own.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n", 1)
        self._file.write(named)


_OF_ANY_NUMPY = SimpleNamespace(__name__="pickle", Pickler=_Pickler)


def _load(data: bytes) -> Any:
    """Return what the zip archive holds. torch.save has written no other format since 2020."""
    if data.count(_ENTRY) > MAX_ENTRIES:  # an entry takes ten times its size in memory
        raise LabelFileError(f"it has over {MAX_ENTRIES} parts", hint="it is no label file")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, RuntimeError) as error:
        raise LabelFileError(
            f"it is no whole file of torch.save ({len(data)} bytes): {error}",
            hint="it is truncated, damaged or no label file",
        ) from None


def _read(archive: zipfile.ZipFile) -> Any:
    entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
    size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_CONTENT_BYTES:
        raise LabelFileError(f"its content of {size} bytes is over the limit of {MAX_CONTENT_BYTES}")

    def read(name: str) -> bytes:
        if name not in entries:
            raise LabelFileError(f"it has no part {name[:80]!r}", hint="it is no label file")
        entry = entries[name]
        if entry.compress_type != zipfile.ZIP_STORED:  # torch.save compresses nothing
            raise LabelFileError(f"its part {name[:80]!r} is compressed", hint="it is no label file")
        with archive.open(entry) as part:
            return part.read(entry.file_size)  # read() without a limit could return more than the entry names

    if "byteorder" in entries and read("byteorder") != b"little":
        raise LabelFileError("it was written by a big-endian machine")
    try:
        return load_arrays(read("data.pkl"), lambda key: read(f"data/{key}"), size)
    except LabelFileError as error:
        raise LabelFileError(
            f"it cannot be read safely: {error.message}",
            hint="label files hold numpy arrays only; nothing else is loaded",
        ) from None


def _array(part: Any, name: str) -> NDArray[Any]:
    if type(part) is not np.ndarray:
        raise LabelFileError(f"its {name} are not an array of numbers")
    return part


def _flags(flips: NDArray[Any]) -> bool:
    return flips.dtype.kind == "b" or (flips.dtype.kind in "iu" and bool(np.isin(flips, (0, 1)).all()))
