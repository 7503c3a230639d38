"""A checkpoint of DINO or DINOv2 -> the bank that its head is.

A head of DINO (arXiv:2104.14294) is an MLP with GELU, a division by the length, and a last layer whose rows have a
length of their own; its teacher's distribution is softmax((outputs - centre) / temperature). That is a bank: the MLP in
front, the last layer as prototypes, the centre as a bias below 0.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slg_wds.arrays import F32
from slg_wds.banks import Bank, DenseLayer
from slg_wds.errors import WeightsError
from slg_wds.teachers.weights import read_nested

TEMPERATURE = 0.07  # at the end of the training of both, where the checkpoint does not say it
# Where the last layer's weight and, if it is apart, its rows' length are: as torch's older weight_norm names them, as
# its newer one does, and as a plain layer.
_LAST = (
    ("last_layer.weight_v", "last_layer.weight_g"),
    ("last_layer.parametrizations.weight.original1", "last_layer.parametrizations.weight.original0"),
    ("last_layer.weight", None),
)
_CENTRE = "dino_loss.center"


def read_head(path: str, temperature: float | None = None) -> Bank:
    """Read the head of the teacher in a checkpoint as a bank.

    Args:
        path: of a checkpoint that has the head: DINO's `..._full_checkpoint.pth`, or what a training of DINO or DINOv2
            wrote. The backbones that are published alone have none.
        temperature: of the labels; None for that of the checkpoint's training.

    Raises:
        WeightsError: there is no such file, it cannot be read safely, or it has no head or several.
    """
    from torch.serialization import safe_globals

    with safe_globals([argparse.Namespace]):  # DINO's options; it holds values and runs nothing
        loaded = read_nested(path)
    tensors = dict(_named(loaded))
    begin = _head_of_teacher(list(tensors), path)
    prototypes = DenseLayer(_last_layer(tensors, begin), _centre_bias(tensors))
    origin = {"checkpoint": Path(path).name, "head": begin.rstrip(".")}
    own = temperature or _trained_temperature(loaded)
    return Bank(prototypes, tuple(_mlp(tensors, begin, path)), unit=True, temperature=own, made_from=origin)


def _named(value: Any, parts: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of nested mappings by their dotted names, without `module`, which wrappers of models add."""
    import torch

    if isinstance(value, torch.Tensor):
        yield ".".join(parts), value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            more = tuple(part for part in str(name).split(".") if part != "module")
            yield from _named(inner, (*parts, *more))


def _head_of_teacher(names: list[str], path: str) -> str:
    """Return how the names of the teacher's head begin, such as `teacher.head.`."""
    ends = [last for last, _ in _LAST]
    found = sorted({name[: -len(end)] for end in ends for name in names if name.endswith(end)})
    found = [begin for begin in found if "ibot" not in begin]  # of patches, not of crops
    of_teacher = [begin for begin in found if "student" not in begin] or found
    if len(of_teacher) != 1:
        listed = ", ".join(begin.rstrip(".") or "the whole file" for begin in of_teacher)
        raise WeightsError(
            f"{path} has {f'several heads: {listed}' if of_teacher else 'no head of DINO: no last_layer'}",
            hint=None
            if of_teacher
            else "backbones are published without heads; DINO's full checkpoints have them",
        )
    return of_teacher[0]


def _last_layer(tensors: Mapping[str, Any], begin: str) -> F32:
    direction, length = next(pair for pair in _LAST if begin + pair[0] in tensors)
    weight = _array(tensors[begin + direction])
    if length is None or begin + length not in tensors:
        return weight.astype(np.float32)
    norms = np.sqrt((weight * weight).sum(axis=1, keepdims=True))
    scaled: F32 = (weight / norms * _array(tensors[begin + length]).reshape(-1, 1)).astype(np.float32)
    return scaled


def _mlp(tensors: Mapping[str, Any], begin: str, path: str) -> Iterator[DenseLayer]:
    """Yield the layers in front of the last one, in their order; a lone one has no number."""
    pattern = re.compile(rf"{re.escape(begin)}mlp\.(?:(\d+)\.)?weight")
    found = [(int(match[1] or 0), name) for name in tensors if (match := pattern.fullmatch(name))]
    for _, name in sorted(found):
        layer = name.removesuffix("weight")
        weight, bias = _array(tensors[name]), tensors.get(f"{layer}bias")
        if weight.ndim != 2:
            raise WeightsError(
                f"{path} has a head with batch normalisation ({layer.rstrip('.')}), which banks do not have"
            )
        yield DenseLayer(weight.astype(np.float32), None if bias is None else _array(bias).astype(np.float32))


def _centre_bias(tensors: Mapping[str, Any]) -> F32 | None:
    centre = next((tensor for name, tensor in tensors.items() if name.endswith(_CENTRE)), None)
    return None if centre is None else (-_array(centre).reshape(-1)).astype(np.float32)


def _trained_temperature(loaded: Any) -> float:
    options = loaded.get("args") if isinstance(loaded, Mapping) else None
    found = getattr(options, "teacher_temp", None)
    return float(found) if isinstance(found, (int, float)) and found > 0 else TEMPERATURE


def _array(tensor: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    array: np.ndarray[Any, np.dtype[np.float64]] = tensor.detach().double().numpy()
    return array
