"""Digests of models. Two runs that write into one label set must have teachers of the same digests."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slg_wds.teachers.inside import find_hidden

if TYPE_CHECKING:
    import torch

# Of these, versions are noted, and not files.
_VERSIONED = ("torch", "torchvision", "timm", "slg_wds", "builtins")


def digest(module: torch.nn.Module) -> str:
    r"""Return the SHA-256 of the state dict in hex: per tensor, by name, `name\ndtype\nshape\n` and its raw bytes."""
    return _digest_of(module.state_dict())


def hidden_digest(module: torch.nn.Module, factory: Any) -> str | None:
    """Return the digest, in hex, of what decides a private model's output beside its state dict.

    It covers the tensors that are not in the state dict. If the model has no tensor at all, its code alone decides the
    labels, and the digest is the SHA-256 of the source files of the factory and of the module's classes.

    Args:
        module: what the factory returned.
        factory: the user's callable.

    Returns:
        The digest; None if the state dict is all that there is.
    """
    outside = find_hidden(module)
    if outside.tensors:
        return _digest_of(outside.tensors)
    if _tensors(module.state_dict()):
        return None
    modules = [*module.modules(), *outside.modules.values()]
    return _digest_of_sources([*_definitions(factory), *(type(one) for one in modules)])


def code_digest(module: torch.nn.Module, factory: Any) -> str | None:
    """Return the SHA-256, in hex, of the source files of a private model: of its factory and its modules' classes.

    It is noted and not compared, since a comment changes it too. Files of torch, torchvision, timm and this package do
    not count: their versions are noted. Nor do files that define no class of the model, which are merely imported.

    Args:
        module: what the factory returned.
        factory: the user's callable.

    Returns:
        The digest; None if there is no such file.
    """
    modules = [*module.modules(), *find_hidden(module).modules.values()]
    classes = {base for one in modules for base in type(one).__mro__}
    own = [
        one
        for one in (*_definitions(factory), *classes)
        if _package(one) not in _VERSIONED and _source(one) is not None
    ]
    return _digest_of_sources(own) if own else None


def _tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a state dict. Its "extra state" may be of any type, without well-defined bytes."""
    import torch

    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _digest_of(state: Mapping[str, Any]) -> str:
    import torch

    sha = hashlib.sha256()
    for name, tensor in sorted(_tensors(state).items()):
        shape = ",".join(map(str, tensor.shape))
        sha.update(f"{name}\n{str(tensor.dtype).removeprefix('torch.')}\n{shape}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha.update(raw.numpy().data)
    return sha.hexdigest()


def _digest_of_sources(objects: Iterable[Any]) -> str:
    """Return the SHA-256 of the source files of functions and classes, except torch's; their paths do not count."""
    contents = {source for one in objects if (source := _source(one)) is not None}
    sha = hashlib.sha256()
    for content in sorted(contents):
        sha.update(b"source\n" + hashlib.sha256(content).digest())
    return sha.hexdigest()


def _definitions(factory: Any) -> Iterator[Any]:
    """Yield the functions and classes that define a factory: also the one inside decorators, caches and partials."""
    while factory is not None:
        if isinstance(factory, functools.partial):
            factory = factory.func
            continue
        defined = inspect.isroutine(factory) or inspect.isclass(factory)
        yield factory if defined else type(factory)
        factory = getattr(factory, "__wrapped__", None)


def _package(one: Any) -> str:
    return str(getattr(one, "__module__", "")).partition(".")[0]


def _source(one: Any) -> bytes | None:
    if _package(one) == "torch":
        return None
    try:
        return Path(inspect.getsourcefile(one) or "").read_bytes()
    except (OSError, TypeError):  # a class defined in an interpreter, or a callable object
        return None
