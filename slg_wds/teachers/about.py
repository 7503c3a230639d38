"""Where teachers run, in words, with advice on faster settings."""

from __future__ import annotations

from slg_wds.console import counted
from slg_wds.teachers.ensemble import Ensemble

TENSOR_CORES = (8, 0)  # the first compute capability that has TF32


def about_device(teacher: Ensemble, threads: int, cpu_asked: bool, hint: str = "") -> list[str]:
    """Return a few lines that say where a teacher runs, with advice on faster settings.

    Args:
        teacher: the ensemble to describe.
        threads: number of CPU threads that one forward uses.
        cpu_asked: whether the user asked for the CPU. If not, a GPU that cannot be used causes a warning.
        hint: how the user of this command asks for the CPU, for that warning; "" if the command has no option for it.
    """
    if teacher.device.type == "cuda":
        return _about_gpu(teacher)
    lines = [f"on {teacher.device_name}, {counted(threads, 'thread')} a forward, {_precision_of(teacher)}"]
    return lines if cpu_asked else lines + _about_unusable_gpu(hint)


def _about_gpu(teacher: Ensemble) -> list[str]:
    import torch

    precision = _precision_of(teacher)
    graphs = all(one.no_graph == "" for one in teacher.teachers)
    lines = [f"on {teacher.device_name}, {precision}{', forwards as CUDA graphs' if graphs else ''}"]
    lines += [f"no CUDA graph of {one.name}: {one.no_graph}" for one in teacher.teachers if one.no_graph]
    if precision == "fp32" and torch.cuda.get_device_capability(teacher.device) >= TENSOR_CORES:
        lines.append(
            "fp32 is exact and leaves this GPU's tensor cores idle, which costs 3 to 4 times the time of bf16; "
            "--precision tf32 rounds products to 10 bits, bf16 to 7"
        )
    return lines


def _about_unusable_gpu(hint: str) -> list[str]:
    """Warn if this torch is built for GPUs and can use none."""
    import torch

    built = torch.version.cuda or getattr(torch.version, "hip", None)
    if not built or torch.cuda.is_available():
        return []
    advice = f"look at the driver with nvidia-smi{f', or {hint}' if hint else ''}"
    return [
        f"warning: this torch is built for GPUs (CUDA {built}) and finds none that it can use, so the CPU is used; "
        f"{advice}"
    ]


def _precision_of(teacher: Ensemble) -> str:
    return teacher.teachers[0].precision  # one option decides it for all
