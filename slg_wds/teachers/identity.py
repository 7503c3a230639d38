"""Digests of models. Two runs that write into one label set must have teachers of the same digests."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slg_wds.teachers.inside import find_hidden

if TYPE_CHECKING:
    import torch


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
    return _digest_of_sources([factory, *(type(one) for one in modules)])


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


def _source(one: Any) -> bytes | None:
    if str(getattr(one, "__module__", "")).partition(".")[0] == "torch":
        return None
    try:
        return Path(inspect.getsourcefile(one) or "").read_bytes()
    except (OSError, TypeError):  # a class defined in an interpreter, or a callable object
        return None
