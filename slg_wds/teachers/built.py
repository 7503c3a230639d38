"""What a source of models gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Built:
    """Attributes:
    module: the model with its weights, on the CPU.
    arch: its architecture alone, as it is recorded: no weights tag, no folders. The digest says which weights.
    digest: SHA-256 of its state dict, in hex: see identity.py.
    weights_from: in words where the weights are from.
    config: its own preprocessing, possibly incomplete.
    config_from: in words where that is from.
    hidden_digest: SHA-256 of what else decides its output, in hex: see identity.py; None where nothing does.
    """

    module: torch.nn.Module
    arch: str
    digest: str
    weights_from: str
    config: Mapping[str, Any] = field(default_factory=dict)
    config_from: str = ""
    hidden_digest: str | None = None
