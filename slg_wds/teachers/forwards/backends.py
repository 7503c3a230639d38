"""How a GPU is configured while a teacher uses it. Afterwards the caller's own settings are restored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def gpu_settings(device: torch.device, precision: str) -> Iterator[None]:
    """Set torch's global options for a GPU so that the same machine gives the same labels; restore them at the end.

    cuDNN does not choose algorithms by timing them, and fp32 is rounded to TF32 only at precision `tf32`. Nothing is
    changed for a CPU.

    Args:
        device: where the teacher runs.
        precision: one of `teacher.PRECISIONS`.
    """
    if device.type != "cuda":
        yield
        return
    from torch import backends

    places = [
        (backends.cudnn, "benchmark"),
        (backends.cudnn, "deterministic"),
        (backends.cudnn, "allow_tf32"),
        (backends.cuda.matmul, "allow_tf32"),
        *[(place, "fp32_precision") for place in _fp32_places()],
    ]
    before = [(place, name, value) for place, name in places if (value := _read(place, name)) is not None]
    backends.cudnn.benchmark = False
    backends.cudnn.deterministic = True
    _set_tf32(precision == "tf32")
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _fp32_places() -> list[Any]:
    """Return the objects whose `fp32_precision` torch has read since 2.9.

    Setting allow_tf32 changes them too, but resetting it does not change them back.
    """
    from torch import backends

    cudnn: Any = backends.cudnn
    places = (getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None), backends.cuda.matmul)
    return [place for place in places if place is not None]


def _read(place: Any, name: str) -> Any:
    """Return a setting; None if this torch lacks it, or refuses it because the caller used the other way to set it."""
    try:
        return getattr(place, name)
    except (AttributeError, RuntimeError):
        return None


def _set_tf32(allowed: bool) -> None:
    from torch import backends

    # Both ways are set: torch.compile reads allow_tf32, and torch raises an error when the two disagree.
    backends.cudnn.allow_tf32 = allowed
    backends.cuda.matmul.allow_tf32 = allowed
    for place in _fp32_places():
        with contextlib.suppress(AttributeError, RuntimeError):
            place.fp32_precision = "tf32" if allowed else "ieee"


def current_device(device: str) -> AbstractContextManager[Any]:
    """Return a context in which a GPU is the current one. Otherwise pinning memory would use the first GPU's memory."""
    if not device.startswith("cuda"):
        return nullcontext()
    import torch

    return torch.cuda.device(torch.device(device))


def gpu_libraries() -> dict[str, str]:
    """Return the versions of the libraries with which this torch computes on a GPU. They may move last bits."""
    import torch

    found = {
        "cuda": torch.version.cuda,
        "hip": getattr(torch.version, "hip", None),
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # with hip, that of MIOpen
    }
    return {name: str(version) for name, version in found.items() if version is not None}
