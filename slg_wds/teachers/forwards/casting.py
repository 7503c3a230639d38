"""Weights of bf16 and fp16 forwards, cast once instead of in every forward.

Autocast casts the weights of each convolution and linear layer anew in every forward if they are frozen: it keeps casts
only of weights that are trained. That is one or two more kernels for each layer, and launching kernels is what limits a
fast GPU. The casts round the same numbers in the same way, so the logits keep their bits, unless a model does more with
a weight than to multiply by it. So both are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def cast_weights(module: torch.nn.Module, low: torch.dtype, run: Callable[[], torch.Tensor]) -> bool:
    """Cast the weights and biases of convolutions and linear layers, if the logits keep their bits.

    Args:
        module: the model, in float32 and frozen.
        low: the type to which autocast lowers products.
        run: runs the model on the same crops each time, and returns the logits.

    Returns:
        Whether the weights are cast. If not, the model is as it was.
    """
    import torch

    before = {parameter: parameter.data for parameter in _weights(module)}
    expected = run()
    try:
        for parameter in before:
            parameter.data = parameter.data.to(low)
        same = torch.equal(run(), expected)
    except Exception:  # a model may multiply by its weights outside autocast, in float32
        same = False
    if not same:
        for parameter, data in before.items():
            parameter.data = data
    return same


def _weights(module: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            for name in ("weight", "bias"):
                # A weight that is computed from others (weight_norm) is no parameter of the layer itself.
                parameter = layer._parameters.get(name)
                if parameter is not None:
                    yield parameter
