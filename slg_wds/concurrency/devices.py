"""The device that a caller names, if this machine has it; and whether one failed in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slg_wds.console import counted
from slg_wds.errors import UsageError

if TYPE_CHECKING:
    import torch


_failed: set[str] = set()


def note_failure(device: torch.device) -> None:
    """Note that a device failed in this process, which cannot use it any more."""
    _failed.add(str(device))


def any_failed() -> bool:
    """Return whether a device failed in this process, whose normal exit may then hang in the driver, or abort."""
    return bool(_failed)


def device_here(device: torch.device | str) -> torch.device:
    """Return a device by its name, such as "cpu" or "cuda:1". The device itself is not touched.

    Raises:
        UsageError: torch knows no such device, or sees no such GPU.
    """
    import torch

    try:
        where = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}", hint="write cpu, cuda or cuda:N") from None
    if where.type == "cuda" and (where.index or 0) >= (gpus := torch.cuda.device_count()):
        sees = f"sees {counted(gpus, 'GPU')}, 0..{gpus - 1}" if gpus else "sees no GPU"
        raise UsageError(f"no device {where}: torch {sees}", hint=None if gpus else "cpu is always there")
    return where
