"""Tells errors of a device from those of a model: after an error of the device, another process may succeed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from slg_wds.concurrency.devices import note_failure
from slg_wds.errors import DeviceError, MemoryFullError, SlgWdsError
from slg_wds.teachers.weights import one_line

if TYPE_CHECKING:
    import torch

_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|_ALLOC(ATION)?_FAILED", re.IGNORECASE
)
_DEVICE = re.compile(
    r"\b(CUDA|HIP|cuDNN|cuBLAS|MIOpen)\b[^:]*\berror\b|Triton Error|CUDNN_STATUS_|CUBLAS_STATUS_",
    re.IGNORECASE,
)
# A call that a library rejects, or that this build of torch has no kernel for, fails in every process alike.
_CALL = re.compile(r"_NOT_SUPPORTED|_BAD_PARAM|_INVALID_VALUE|_ARCH_MISMATCH|no kernel image", re.IGNORECASE)

# The hint of commands without an option that takes less memory.
FREE_MEMORY = "free memory of the device, or put CUDA_VISIBLE_DEVICES= before the command to use the CPU"


@contextlib.contextmanager
def device_faults(device: torch.device, what: str) -> Iterator[None]:
    """Turn the device's errors inside the block into DeviceError or MemoryFullError; let all others through.

    Args:
        device: where the block runs.
        what: the message's first part, such as "timm:resnet50 failed on uint8 [50, 3, 224, 224]".

    Raises:
        DeviceError: the device failed. Everything that this process has on it is lost, so the process must end.
        MemoryFullError: the device's memory is full; see `hint_if_full`.
    """
    try:
        yield
    except SlgWdsError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or _MEMORY.search(str(error)):
            raise MemoryFullError(f"{what}: {one_line(error)}") from error
        if _of_device(error):
            note_failure(device)
            raise DeviceError(
                f"{what}, because of the device {device}: {one_line(error)}",
                hint="run the same command again; if it fails again, look at the device (nvidia-smi -q, dmesg)",
            ) from error
        raise


@contextlib.contextmanager
def hint_if_full(hint: str) -> Iterator[None]:
    """Say what to do if the device's memory is full inside the block. Of several, the outermost one says it.

    Args:
        hint: names options of the command that runs the block; nobody further down knows which ones there are.
    """
    try:
        yield
    except MemoryFullError as error:
        error.hint = hint
        raise


def _of_device(error: Exception) -> bool:
    import torch

    kind = getattr(torch, "AcceleratorError", ())  # since torch 2.8; a plain RuntimeError before
    matches = isinstance(error, kind) or (isinstance(error, RuntimeError) and _DEVICE.search(str(error)))
    return bool(matches) and not _CALL.search(str(error))
