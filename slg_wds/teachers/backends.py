"""How a GPU is set while a teacher uses it, and only then: a caller's own settings are as before afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from slg_wds.console import counted

if TYPE_CHECKING:
    import torch

    from slg_wds.teachers.ensemble import Ensemble

TENSOR_CORES = (8, 0)  # the first compute capability that has TF32


@contextlib.contextmanager
def gpu_settings(device: torch.device, precision: str) -> Iterator[None]:
    """Same machine, same labels: no algorithm is chosen by timing it, and fp32 is rounded to TF32 only where asked.

    The settings are torch's global ones. On a CPU nothing is changed.
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
        *[(one, "fp32_precision") for one in _newer()],
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


def _newer() -> list[Any]:
    """Where torch keeps the precision of fp32 since 2.9; allow_tf32 moves it too, but does not put it back."""
    from torch import backends

    cudnn: Any = backends.cudnn
    places = (getattr(cudnn, "conv", None), getattr(cudnn, "rnn", None), backends.cuda.matmul)
    return [one for one in places if one is not None]


def _read(place: Any, name: str) -> Any:
    """A setting; None where this torch lacks it, or where the caller has set it in the newer way."""
    try:
        return getattr(place, name)
    except (AttributeError, RuntimeError):
        return None


def _set_tf32(allowed: bool) -> None:
    from torch import backends

    # torch.compile reads allow_tf32, and torch refuses that where the two ways disagree: so both are set.
    backends.cudnn.allow_tf32 = allowed
    backends.cuda.matmul.allow_tf32 = allowed
    for place in _newer():
        with contextlib.suppress(AttributeError, RuntimeError):
            place.fp32_precision = "tf32" if allowed else "ieee"


def current_device(device: str) -> AbstractContextManager[Any]:
    """Make a GPU the current one, or pinned memory would take some of the first GPU's for every process."""
    if not device.startswith("cuda"):
        return nullcontext()
    import torch

    return torch.cuda.device(torch.device(device))


def about_device(teacher: Ensemble, threads: int, cpu_asked: bool) -> list[str]:
    """What people should know of where a teacher runs, in lines.

    Args:
        threads: of a forward on a CPU.
        cpu_asked: whether the CPU was asked for, so that nobody wonders where the GPU is.
    """
    import torch

    precision = teacher.teachers[0].precision
    if teacher.device.type != "cuda":
        lines = [f"on {teacher.device_name}, {counted(threads, 'thread')} a forward, {precision}"]
        built = torch.version.cuda or getattr(torch.version, "hip", None)
        if built and not cpu_asked and not torch.cuda.is_available():
            lines.append(
                f"warning: this torch is built for GPUs (CUDA {built}) and finds none that it can use, so the CPU is "
                "used; look at the driver with nvidia-smi, or say --devices cpu"
            )
        return lines
    lines = [f"on {teacher.device_name}, {precision}"]
    if precision == "fp32" and torch.cuda.get_device_capability(teacher.device) >= TENSOR_CORES:
        lines.append(
            "fp32 is exact and leaves this GPU's tensor cores idle, which costs 3 to 4 times the time of bf16; "
            "--precision tf32 rounds products to 10 bits, bf16 to 7"
        )
    return lines
