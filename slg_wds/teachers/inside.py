"""What a module keeps where torch does not look: tensors of no state dict, modules that `eval()` does not reach."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Where torch looks itself.
_REGISTERED = ("_parameters", "_buffers", "_modules")
_PLAIN = (str, bytes, int, float, complex, type(None), type, types.ModuleType)
# Objects of these packages hold no weights of the user's, but much else.
_FOREIGN = ("torch", "torchvision", "timm", "numpy", "builtins", "typing", "collections", "logging")


@dataclass(frozen=True)
class Hidden:
    """Attributes:
    tensors: those that are no parameter and no persistent buffer, by where they were found.
    modules: those that are in no `modules()`, likewise.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    modules: dict[str, torch.nn.Module] = field(default_factory=dict)


def hidden(module: torch.nn.Module) -> Hidden:
    """Search a module's attributes, lists, dicts, objects and closures in them, and buffers that are not persistent.

    What only the code of a function names, such as a global variable, is not found.
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
    """The ids of all that torch finds by itself: registered modules, and the tensors of the state dict."""
    lasting = set(module.state_dict())
    tensors = [
        *module.named_parameters(),
        *((name, one) for name, one in module.named_buffers() if name in lasting),
    ]
    return {id(one) for one in module.modules()} | {id(tensor) for _, tensor in tensors}


def _joined(path: str, part: str) -> str:
    return f"{path}.{part}" if path else part


def _tensor(value: Any) -> torch.Tensor | None:
    """The value as a tensor that has bytes, where it is one, or an array of numbers."""
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
    """What an object holds, each with a name that is the same at every start."""
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
    except ValueError:  # a name that is not set yet
        return None
