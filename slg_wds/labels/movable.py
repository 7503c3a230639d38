"""Tensors that belong together move together: to a device, or into pinned memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

M = TypeVar("M", bound="Movable")


class Movable:
    """Tensors, objects of this kind, tuples and dicts of these, and plain values, as attributes named as its arguments.

    `to` and `pin_memory` are what trainers and torch's own DataLoader look for in a batch. Labels are no dataclasses,
    because Lightning rounds the floats in those to the model's precision (`bf16-true`).
    """

    def to(self: M, device: torch.device | str, non_blocking: bool = False) -> M:
        """Return the same on a device.

        Args:
            device: of every tensor in the result.
            non_blocking: do not wait for copies from pinned memory, as `torch.Tensor.to` does.
        """
        return self.changed(densely(lambda tensor: tensor.to(device, non_blocking=non_blocking)))

    def pin_memory(self: M) -> M:
        """Return the same in memory from which copies to a GPU need not be waited for."""
        return self.changed(densely(lambda tensor: tensor.pin_memory()))

    def tensors(self) -> Iterator[Tensor]:
        """Return all tensors in it."""
        from torch import Tensor

        for value in vars(self).values():
            parts = value.values() if isinstance(value, dict) else value
            for one in parts if isinstance(value, (tuple, dict)) else (value,):
                if isinstance(one, Tensor):
                    yield one
                elif isinstance(one, Movable):
                    yield from one.tensors()

    def changed(self: M, change: Callable[[Tensor], Tensor]) -> M:
        """Return the same with `change(tensor)` for each tensor in it."""
        from torch import Tensor

        def new(value: Any) -> Any:
            if isinstance(value, Tensor):
                return change(value)
            if isinstance(value, tuple):
                return tuple(map(new, value))
            if isinstance(value, dict):
                return {name: new(one) for name, one in value.items()}
            return value.changed(change) if isinstance(value, Movable) else value

        return type(self)(**{name: new(value) for name, value in vars(self).items()})


def densely(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return `change` for tensors that repeat themselves (of stride 0) too: what is repeated is changed once.

    Torch cannot pin them, and a copy of [B, C] class numbers is B times the bytes of one row.
    """

    def changed(tensor: Tensor) -> Tensor:
        return change(unrepeated(tensor)).expand(tensor.shape) if 0 in tensor.stride() else change(tensor)

    return changed


def unrepeated(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that is repeated along dimensions of stride 0, with one place in each of these."""
    return tensor[tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())]
