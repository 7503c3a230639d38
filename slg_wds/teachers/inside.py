"""The tensors and modules that a module keeps outside torch's registries.

Such tensors are in no state dict, so its digest misses them; such modules are not reached by `eval()`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The registries that torch itself searches.
_REGISTERED = ("_parameters", "_buffers", "_modules")
_PLAIN = (str, bytes, int, float, complex, type(None), type, types.ModuleType)
# Objects of these packages hold no weights of the user but many other things, so they are not searched.
_FOREIGN = ("torch", "torchvision", "timm", "numpy", "builtins", "typing", "collections", "logging")


@dataclass(frozen=True)
class Hidden:
    """What a module keeps outside torch's registries.

    Attributes:
        tensors: those that are neither parameters nor persistent buffers, by the path at which they were found.
        modules: those that `modules()` does not give, by the path at which they were found.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    modules: dict[str, torch.nn.Module] = field(default_factory=dict)


def find_hidden(module: torch.nn.Module) -> Hidden:
    """Search a module's attributes, with the lists, dicts, objects and closures in them, and non-persistent buffers.

    Global variables that a function uses are not found.
    """
    found, seen = Hidden(), _known(module)
    stack: list[tuple[str, Any]] = []
    for name, one in module.named_modules():
        stack += [(_joined(name, part), value) for part, value in one._buffers.items()]
        stack += [
            (_joined(name, part), value) for part, value in vars(one).items() if part not in _REGISTERED
        ]
    while stack:
        path, value = stack.pop()
        if id(value) in seen or isinstance(value, _PLAIN):
            continue
        seen.add(id(value))
        if (tensor := _tensor(value)) is not None:
            found.tensors[path] = tensor
            continue
        if _is_module(value):
            found.modules[path] = value
        stack += [(_joined(path, part), held) for part, held in _parts(value)]
    return found


def _known(module: torch.nn.Module) -> set[int]:
    """Return the ids of the objects that torch finds by itself: registered modules and tensors of the state dict."""
    lasting = set(module.state_dict())
    tensors = [
        *module.named_parameters(),
        *((name, one) for name, one in module.named_buffers() if name in lasting),
    ]
    return {id(one) for one in module.modules()} | {id(tensor) for _, tensor in tensors}


def _joined(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def _tensor(value: Any) -> torch.Tensor | None:
    """Return a tensor that has bytes, or a numpy array of numbers as one; None for anything else."""
    import numpy as np
    import torch

    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(value))
    has_bytes = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta
    return value if has_bytes else None


def _is_module(value: Any) -> bool:
    import torch

    return isinstance(value, torch.nn.Module)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the objects that an object holds, each with a name that is the same in every process."""
    if isinstance(value, Mapping):
        for place, (key, part) in enumerate(list(value.items())):
            yield key if isinstance(key, str) else str(place), part
    elif isinstance(value, (list, tuple)):
        yield from ((str(place), part) for place, part in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield "self", value.__self__
    elif isinstance(value, types.FunctionType):
        yield "defaults", value.__defaults__
        cells = value.__closure__ or ()
        yield from ((f"closure.{place}", _content(cell)) for place, cell in enumerate(cells))
    elif _is_module(value) or type(value).__module__.partition(".")[0] not in _FOREIGN:
        yield from getattr(value, "__dict__", {}).items()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable is not set yet
        return None
