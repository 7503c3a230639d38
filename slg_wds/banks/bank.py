"""A bank: a frozen set of prototypes, by which the embedding of a crop becomes a distribution."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slg_wds.arrays import F32
from slg_wds.console import counted
from slg_wds.errors import UsageError, WeightsError
from slg_wds.format.canonical import brief
from slg_wds.format.records.embeddings.fields import MAX_DIM

MAX_TEMPERATURE = 1e6
MAX_PROTOTYPES = 1 << 20  # full labels have no more classes
# Of the banks that `slg-wds prototypes` makes: that of the teachers of CompRess (arXiv:2010.14713) and DINO.
USUAL_TEMPERATURE = 0.04


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """An affine map: weight x + bias.

    Attributes:
        weight: float32 [outputs, inputs].
        bias: float32 [outputs]; None for zeros.
    """

    weight: F32
    bias: F32 | None = None

    @property
    def inputs(self) -> int:
        """Numbers that it takes."""
        return int(self.weight.shape[1])

    @property
    def outputs(self) -> int:
        """Numbers that it gives."""
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class Bank:
    """Prototypes, and what an embedding goes through before it is compared with them.

    An embedding z becomes softmax((weight z + bias) / temperature). Before that it goes through the layers of `mlp`,
    with GELU between them, and is divided by its length if `unit` says so. Released heads of DINO (arXiv:2104.14294)
    and DINOv2 (arXiv:2304.07193) have this form, and so have queues of embeddings and centres of clusters.

    Attributes:
        prototypes: their weight [K, W] and bias [K].
        mlp: layers in front; none for most banks.
        unit: whether the vector that meets the prototypes has unit length. One of zeros stays as it is.
        temperature: the temperature to use where no other is asked for; None if the bank names none.
        made_from: what is noted of its origin, as JSON values. `weights_sha256`, if it is there, is the digest of the
            teacher whose embeddings the bank is for.
        sha256: of its file, hex; "" for one that has no file yet.
    """

    prototypes: DenseLayer
    mlp: tuple[DenseLayer, ...] = ()
    unit: bool = False
    temperature: float | None = None
    made_from: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def __post_init__(self) -> None:
        """Check the layers. Raises WeightsError if they are not a bank."""
        for name, layer in self.named_layers().items():
            _check_layer(name or "the prototypes", layer)
        chain = [*self.mlp, self.prototypes]
        for number, (layer, after) in enumerate(itertools.pairwise(chain)):
            if layer.outputs != after.inputs:
                raise WeightsError(
                    f"mlp.{number} gives {layer.outputs} numbers, and the next layer takes {after.inputs}"
                )
        if not 2 <= self.size <= MAX_PROTOTYPES:
            raise WeightsError(
                f"it has {counted(self.size, 'prototype')}, not 2 to {MAX_PROTOTYPES:,}: weight is [prototypes, D]"
            )
        if not 1 <= self.dim <= MAX_DIM:
            raise WeightsError(f"embeddings of {self.dim} numbers are not 1 to {MAX_DIM}")
        if self.temperature is not None and not 0 < self.temperature <= MAX_TEMPERATURE:
            raise WeightsError(f"its temperature {brief(self.temperature)} is not above 0 and at most 10^6")

    @property
    def size(self) -> int:
        """Number of prototypes, K: the classes of the labels."""
        return self.prototypes.outputs

    @property
    def dim(self) -> int:
        """Numbers of the embeddings that it takes, D."""
        return (self.mlp[0] if self.mlp else self.prototypes).inputs

    def __str__(self) -> str:
        layers = f", {len(self.mlp)} layers in front" if self.mlp else ""
        return f"a bank of {self.size} prototypes{layers}"

    def named_layers(self) -> dict[str, DenseLayer]:
        """Return the layers by the beginnings of their tensors' names."""
        return {"": self.prototypes, **{f"mlp.{number}.": layer for number, layer in enumerate(self.mlp)}}

    def temperature_or(self, asked: float | None) -> float:
        """Return the temperature asked for, or else the bank's own.

        Raises:
            UsageError: there is neither.
        """
        found = self.temperature if asked is None else asked
        if found is None:
            raise UsageError("the bank names no temperature", hint="give --bank-temp, such as 0.1")
        return float(found)

    def check_teacher(
        self, name: str, dim: int, weights_sha256: str | None, normalized: bool = False
    ) -> None:
        """Check that the bank is for the embeddings of a teacher.

        Args:
            name: of the teacher or its embedding, for messages.
            dim: numbers of its embeddings.
            weights_sha256: digest of its weights; None if it is not known.
            normalized: whether its embeddings were divided by their length.

        Raises:
            UsageError: it is not.
        """
        if dim != self.dim:
            raise UsageError(
                f"the bank takes embeddings of {counted(self.dim, 'number')}, and {name} gives {dim:,}"
            )
        own = self.made_from.get("weights_sha256")
        if own and weights_sha256 and own != weights_sha256:
            raise UsageError(
                f"the bank was made from embeddings of another teacher: its weights are {str(own)[:12]}, and those of "
                f"{name} are {weights_sha256[:12]}",
                hint="make a bank of this teacher's embeddings: slg-wds prototypes",
            )
        if normalized and (self.mlp or not self.unit):
            raise UsageError(
                f"the bank takes embeddings of the teacher's own length, and those of {name} were divided by it",
                hint="store them by slg-wds generate without --normalize",
            )


def _check_layer(name: str, layer: DenseLayer) -> None:
    weight, bias = layer.weight, layer.bias
    name = name.rstrip(".")
    if weight.dtype != np.float32 or weight.ndim != 2 or not weight.size:
        raise WeightsError(
            f"the weight of {name} is {weight.dtype} {list(weight.shape)}, not float32 [outputs, inputs]"
        )
    if bias is not None and (bias.dtype != np.float32 or bias.shape != weight.shape[:1]):
        raise WeightsError(
            f"the bias of {name} is {bias.dtype} {list(bias.shape)}, not float32 [{weight.shape[0]}]"
        )
    if not np.isfinite(weight).all() or (bias is not None and not np.isfinite(bias).all()):
        raise WeightsError(f"a number of {name} is NaN or infinite")
