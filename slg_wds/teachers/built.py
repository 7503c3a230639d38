"""What every source of models returns: a model with its weights and its own preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BuiltModel:
    """A model with its weights, before it is moved to a device.

    Attributes:
        module: the model, on the CPU.
        arch: the architecture as label sets record it: without the weights' tag, and without the folders of a private
            file's path. `digest` says which weights they are.
        digest: SHA-256 of the state dict, in hex: see identity.py.
        weights_from: where the weights come from, in words.
        config: the model's own preprocessing, possibly incomplete.
        config_from: where `config` comes from, in words.
        hidden_digest: SHA-256, in hex, of what decides the output beside the state dict: see identity.py. None if
            nothing else does.
        code_digest: SHA-256, in hex, of the source files of a private model: see identity.py. None for other models.
        class_folders: what the weights file says of class folders: see `Weights`.
    """

    module: torch.nn.Module
    arch: str
    digest: str
    weights_from: str
    config: Mapping[str, Any] = field(default_factory=dict)
    config_from: str = ""
    hidden_digest: str | None = None
    code_digest: str | None = None
    class_folders: object = None
