"""The plain forward of a model, from uint8 crops to float32 logits, and the same compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from slg_wds.transforms.normalisation import Normalisation

if TYPE_CHECKING:
    import torch

    from slg_wds.teachers.preprocessing import Preprocessing

    Run = Callable[[torch.Tensor], Any]


def low_precision(precision: str) -> torch.dtype | None:
    """Return the type to which autocast lowers products at a precision; None where there is no autocast."""
    import torch

    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def plain_forward(
    module: torch.nn.Module, preprocessing: Preprocessing, device: torch.device, precision: str
) -> Run:
    """Return the function uint8 [N, 3, S, S] -> float32 logits [N, C], or whatever else the module returns."""
    import torch

    normalised = Normalisation(preprocessing.mean, preprocessing.std, device)
    low = low_precision(precision)

    def forward(images: torch.Tensor) -> Any:
        pixels = normalised(images)
        with torch.autocast(device.type, dtype=low, enabled=low is not None):
            out = logits_of(module(pixels))
        return out.float() if isinstance(out, torch.Tensor) else out

    return forward


def logits_of(output: Any) -> Any:
    """Return the logits in a model's output. Hugging Face's classifiers return an object with `.logits`."""
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return output if found is None else found


def compiled(forward: Run) -> Run:
    """Return a forward that torch.compile compiles at its first call, and again for each new shape."""
    import torch
    import torch._inductor.config as inductor

    # Without it, kernels may be chosen by timing them, so that results depend on the machine's other load.
    options: Any = {"deterministic": True} if hasattr(inductor, "deterministic") else None
    run: Run = torch.compile(forward, dynamic=False, options=options)
    return run


def lay_out_weights(module: torch.nn.Module, layout: torch.memory_format) -> None:
    """Put the weights of two-dimensional convolutions into a memory layout."""
    # Module.to(memory_format=...) refuses modules with five-dimensional weights.
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
