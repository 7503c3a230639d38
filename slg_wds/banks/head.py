"""Embeddings -> distributions over the prototypes of a bank, in torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from slg_wds.banks.bank import Bank, DenseLayer

SHORTEST = 1e-300  # lengths below it are not divided by


class BankHead:
    """A bank on a device, at a temperature. Any thread may call it.

    Args:
        bank: the bank.
        temperature: above 0; divides what goes into the softmax.
        device: where the embeddings are.
    """

    def __init__(self, bank: Bank, temperature: float, device: torch.device | str = "cpu") -> None:
        self.bank, self.temperature = bank, temperature
        self._mlp = [_on(layer, device) for layer in bank.mlp]
        self._prototypes = _on(bank.prototypes, device)

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Return softmax((W z + b) / temperature), without waiting for the device.

        Args:
            embeddings: float32 [N, D].

        Returns:
            float32 [N, K]. A row whose embedding has NaN or infinity is NaN.
        """
        z = embeddings
        for number, (weight, bias) in enumerate(self._mlp):
            z = functional.linear(functional.gelu(z) if number else z, weight, bias)
        if self.bank.unit:
            z = _of_unit_length(z)
        scores = functional.linear(z, *self._prototypes)
        nan_or_0 = (embeddings * 0).sum(1, keepdim=True)  # softmax alone would hide an infinity
        return torch.softmax(scores / self.temperature, 1) + nan_or_0


def _of_unit_length(vectors: Tensor) -> Tensor:
    """Divide rows by their length, in float64: squares of large numbers overflow float32."""
    exact = vectors.double()
    unit: Tensor = exact / torch.linalg.vector_norm(exact, dim=1, keepdim=True).clamp(min=SHORTEST)
    return unit.float()


def _on(layer: DenseLayer, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    bias = None if layer.bias is None else torch.from_numpy(layer.bias).to(device)
    return torch.from_numpy(layer.weight).to(device), bias
