"""Digests of models: two runs that write into one set must have the same."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slg_wds.teachers.inside import hidden

if TYPE_CHECKING:
    import torch


def digest(module: torch.nn.Module) -> str:
    """SHA-256 in hex over the state dict: per tensor in order of name, `name\\ndtype\\nshape\\n` and its raw bytes."""
    return _digest_of(module.state_dict())


def hidden_digest(module: torch.nn.Module, factory: Any) -> str | None:
    """The digest of what a user's factory built beside the state dict; None where the state dict is all.

    It is over the tensors that the state dict does not have. Without any tensor the code is all that decides the
    labels: then it is SHA-256 over the source files of the factory and of the module's classes.
    """
    more = hidden(module)
    if more.tensors:
        return _digest_of(more.tensors)
    if _tensors(module.state_dict()):
        return None
    modules = [*module.modules(), *more.modules.values()]
    return _digest_of_sources([factory, *(type(one) for one in modules)])


def _tensors(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Those of a state dict. "Extra state" of any type has no bytes that could be relied on."""
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


def _digest_of_sources(made_by: Iterable[Any]) -> str:
    """SHA-256 over the source files of functions and classes, wherever they lie; those of torch's own do not count."""
    contents = {source for one in made_by if (source := _source(one)) is not None}
    sha = hashlib.sha256()
    for content in sorted(contents):
        sha.update(b"source\n" + hashlib.sha256(content).digest())
    return sha.hexdigest()


def _source(one: Any) -> bytes | None:
    if str(getattr(one, "__module__", "")).partition(".")[0] == "torch":
        return None
    try:
        return Path(inspect.getsourcefile(one) or "").read_bytes()
    except (OSError, TypeError):  # of a class made in an interpreter, or of a callable object
        return None
