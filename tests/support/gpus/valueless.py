"""A GPU imitated by torch's device "meta", whose tensors have no values: whatever the host would wait for is an error.

Torch itself raises where a value is asked for, as `.item()`, `if tensor:` or a shape that depends on values do. This
module also raises at copies from the host for which the host waits: those that are not asynchronous, or not from pinned
memory. Such copies are also in `torch.tensor(numbers, device=...)` and in operators on tensors of both sides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from support.gpus.lazy_streams import HostWaitsError, address


@contextlib.contextmanager
def valueless(monkeypatch) -> Iterator[None]:
    """Raise HostWaitsError in this context where the host would wait."""
    pinned: list[torch.Tensor] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    with _Made(), _Copies(pinned):
        yield


class _Made(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and made.is_meta:
            raise HostWaitsError("numbers of the host are copied from ordinary memory")
        return made


class _Copies(TorchDispatchMode):
    def __init__(self, pinned: list[torch.Tensor]) -> None:
        super().__init__()
        self.pinned = pinned

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors: list[torch.Tensor] = []
        tree_map_only(torch.Tensor, tensors.append, (args, kwargs))
        here = [
            one for one in tensors if one.dim() and not one.is_meta
        ]  # single numbers are arguments of a kernel
        there = any(one.is_meta for one in tensors) or str(kwargs.get("device")) == "meta"
        if here and there:
            asked = {**dict(zip((one.name for one in func._schema.arguments), args, strict=False)), **kwargs}
            pinned = {address(one) for one in self.pinned}
            if not asked.get("non_blocking") or not {address(one) for one in here} <= pinned:
                raise HostWaitsError(f"{func} copies from the host, and the host waits for it")
        return func(*args, **kwargs)
