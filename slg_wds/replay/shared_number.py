"""A number that the workers of torch's DataLoader see change."""

from __future__ import annotations


class SharedNumber:
    """A number in shared memory, which torch's DataLoader hands to its workers, forked or spawned.

    Plain attributes are copied when workers start, so workers that live on (`persistent_workers=True`) would keep what
    they had in the first epoch.

    Args:
        value: at the beginning.
    """

    def __init__(self, value: float) -> None:
        import torch

        self._cell = torch.tensor([value], dtype=torch.float64).share_memory_()  # type: ignore[no-untyped-call]

    @property
    def value(self) -> float:
        """What it is now, in every process."""
        return float(self._cell)

    @value.setter
    def value(self, value: float) -> None:
        self._cell[0] = value
