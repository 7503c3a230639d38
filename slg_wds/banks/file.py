"""A bank <-> a safetensors file. FORMAT.md specifies it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from slg_wds.arrays import F32
from slg_wds.banks.bank import Bank, DenseLayer
from slg_wds.errors import ManifestError, WeightsError
from slg_wds.files import read_file, reason_of
from slg_wds.format.canonical import brief, canonical_json, parse_json

MAX_BYTES = 1 << 34
METADATA = "bank"  # the only entry of the file's metadata: several would be written in an order that changes


def encode_bank(bank: Bank) -> bytes:
    """Return the bytes of a bank's file. Equal banks have equal bytes."""
    from safetensors.numpy import save

    tensors = {}
    for name, layer in bank.named_layers().items():
        tensors[f"{name}weight"] = np.ascontiguousarray(layer.weight, "<f4")
        if layer.bias is not None:
            tensors[f"{name}bias"] = np.ascontiguousarray(layer.bias, "<f4")
    about: dict[str, Any] = {"unit": bank.unit, "made_from": dict(bank.made_from)}
    if bank.temperature is not None:
        about["temperature"] = bank.temperature
    return save(tensors, {METADATA: canonical_json(about).decode()})


def read_bank(path: str) -> Bank:
    """Read the bank in a file.

    Raises:
        WeightsError: there is no such file, or it is damaged or not a bank.
    """
    try:
        data = read_file(path, _check_size)
        return decode_bank(data)
    except OSError as error:
        raise WeightsError(
            f"no bank can be read from {path}: {reason_of(error)}",
            hint="slg-wds prototypes SET --save-path FILE makes one",
        ) from None
    except WeightsError as error:
        error.message = f"{path} is not a bank: {error.message}"
        raise


def decode_bank(data: bytes) -> Bank:
    """Read a bank from the bytes of its file.

    Raises:
        WeightsError: they are damaged, or not a bank.
    """
    from safetensors import SafetensorError, deserialize

    try:
        tensors = dict(deserialize(data))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise WeightsError(f"it is no whole safetensors file ({error})") from None
    about = _metadata(data)
    layers = _layers(tensors)
    return Bank(
        prototypes=layers[0],
        mlp=tuple(layers[1:]),
        unit=about.get("unit", False),
        temperature=about.get("temperature"),
        made_from=about.get("made_from", {}),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise WeightsError(f"it has {size} bytes, and a bank has at most {MAX_BYTES}")


def _metadata(data: bytes) -> dict[str, Any]:
    """Return what the header says of the bank, once the library has checked the header."""
    try:
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        about = parse_json(str(header.get("__metadata__", {}).get(METADATA, "{}")).encode())
    except ManifestError as error:
        raise WeightsError(f"its metadata are damaged: {error.message}") from None
    kinds = {"unit": (bool,), "temperature": (int, float), "made_from": (dict,)}
    for name, kind in kinds.items():
        if name in about and type(about[name]) not in kind:
            raise WeightsError(f"{name} of its metadata is {brief(about[name])}")
    return about


def _layers(tensors: Mapping[str, Mapping[str, Any]]) -> list[DenseLayer]:
    """Return the prototypes, then the layers in front of them in their order."""
    depth = 0
    while f"mlp.{depth}.weight" in tensors:
        depth += 1
    begins = ["", *(f"mlp.{number}." for number in range(depth))]
    known = {f"{begin}{part}" for begin in begins for part in ("weight", "bias")}
    if "weight" not in tensors or (strange := sorted(set(tensors) - known)):
        found = strange if "weight" in tensors else sorted(tensors)
        raise WeightsError(
            f"it has the tensors {', '.join(found[:4]) or 'of nothing'}, where weight [K, D] and bias [K] belong",
            hint="a checkpoint of DINO or DINOv2 becomes a bank by slg-wds prototypes CHECKPOINT --save-path FILE"
            if any(re.search(r"last_layer|mlp|head", name) for name in found)
            else None,
        )
    return [
        DenseLayer(
            _array(f"{begin}weight", tensors[f"{begin}weight"]),
            _array(f"{begin}bias", tensors[f"{begin}bias"]) if f"{begin}bias" in tensors else None,
        )
        for begin in begins
    ]


def _array(name: str, tensor: Mapping[str, Any]) -> F32:
    if tensor["dtype"] != "F32":
        raise WeightsError(f"{name} is {tensor['dtype']}, and a bank has float32 (F32)", hint="convert it")
    # `require` copies only memory that is read-only: a bank may have gigabytes.
    numbers = np.frombuffer(tensor["data"], "<f4").reshape(tensor["shape"])
    array: F32 = np.require(numbers, np.float32, "W")
    return array
