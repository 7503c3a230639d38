"""The embeddings of a batch in the making."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from slg_wds.errors import RecordError
from slg_wds.format.records.rows import Rows
from slg_wds.labelset.labelset import LabelSet

if TYPE_CHECKING:
    import torch


class EmbeddingColumns:
    """float32 [n, c, D] of each embedding of a set, zeros in padding; threads fill in disjoint images."""

    def __init__(self, labels: LabelSet, n: int, c: int) -> None:
        kinds = labels.identity.embeddings or []
        self._found = {one["name"]: np.zeros((n, c, one["dim"]), np.float32) for one in kinds}

    def put(self, images: npt.NDArray[np.int64], rows: Rows) -> None:
        """Put in the embeddings of these images. Raises RecordError for a record of others than the set's."""
        found = rows.embeddings or {}
        if {name: one.shape[-1] for name, one in found.items()} != self._dims:
            raise RecordError("its embeddings are not those that the set says it holds")
        for name, one in found.items():
            self._found[name][images] = one

    @property
    def _dims(self) -> dict[str, int]:
        return {name: one.shape[-1] for name, one in self._found.items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the embeddings by their names, float32 [n * c, D]."""
        import torch

        return {name: torch.from_numpy(one.reshape(-1, one.shape[-1])) for name, one in self._found.items()}
