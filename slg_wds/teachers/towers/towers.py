"""Several teachers without heads -> their embeddings of the same crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slg_wds.errors import UsageError
from slg_wds.format.records.embeddings.fields import MAX_EMBEDDINGS
from slg_wds.teachers.ensemble import Ensemble
from slg_wds.teachers.teacher import Teacher

if TYPE_CHECKING:
    import torch

SHORTEST = 1e-30  # lengths below it are not divided by


class Towers(Ensemble):
    """One teacher or several that embed the same crops. Nothing is averaged, so they may differ in width.

    Attributes:
        names: the name of each teacher's embedding: its architecture, with a number where one is there twice.
        dims: the numbers of each embedding.
        normalize: whether embeddings are divided by their length.
    """

    def __init__(self, teachers: Sequence[Teacher], normalize: bool = False) -> None:
        """Join teachers.

        Args:
            teachers: 1 to 16, on the same device.
            normalize: divide each embedding by its length. An embedding of zeros stays as it is.

        Raises:
            UsageError: no teacher, or too many.
        """
        super().__init__(teachers)
        if len(teachers) > MAX_EMBEDDINGS:
            raise UsageError(
                f"{len(teachers)} teachers are more than the {MAX_EMBEDDINGS} that a record holds"
            )
        self.normalize = normalize
        self.names = _names([teacher.arch for teacher in teachers])
        self.dims = [teacher.num_classes for teacher in teachers]
        self.num_classes = 0

    def answers(self, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the embeddings of crops, side by side, without waiting for the device.

        Args:
            batches: for each of `inputs` in order, the same crops as uint8 [N, 3, S, S] on the teachers' device.

        Returns:
            float32 [N, the sum of `dims`].

        Raises:
            DeviceError, TeacherError: as `Teacher.logits`.
        """
        import torch

        with torch.inference_mode():
            pairs = zip(self.teachers, self._batch_of, strict=True)
            parts = [teacher.logits(batches[batch]) for teacher, batch in pairs]
            if self.normalize:
                parts = [
                    part / torch.linalg.vector_norm(part, dim=1, keepdim=True).clamp(min=SHORTEST)
                    for part in parts
                ]
            return torch.cat(parts, dim=1)

    def describe(self) -> list[dict[str, Any]]:
        """Return what decides the embeddings, one JSON object per teacher."""
        return [teacher.describe() for teacher in self.teachers]

    def _check_together(self, teachers: Sequence[Teacher]) -> None:
        """Accept teachers of any widths."""


def _names(archs: Sequence[str]) -> list[str]:
    """Return distinct names: of architectures that are equal, the second gets ` 2`, and so on."""
    seen: dict[str, int] = {}
    names = []
    for arch in archs:
        seen[arch] = seen.get(arch, 0) + 1
        names.append(arch if seen[arch] == 1 else f"{arch} {seen[arch]}")
    return names
