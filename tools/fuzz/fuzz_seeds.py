"""The first inputs of each decoder: golden files, the contents behind their checksums, and earlier findings."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import msgpack
import numpy as np

from slg_wds.format.manifest.description import decode_description, encode_description
from slg_wds.format.shards.tar import members

TESTS = Path(__file__).resolve().parents[2] / "tests"
RECORDS, SET = TESTS / "golden" / "records", TESTS / "golden" / "set"


def seeds(name: str) -> list[bytes]:
    """Return the first inputs of a decoder: whole files, the contents behind their checksums, and earlier findings."""
    made = {"record": _records, "shard": _shards, "manifest": _manifests, "label_file": _label_files}
    whole = made[name]() if name in made else [(SET / name).read_bytes()]
    known = TESTS / "malformed" if name == "shard" else TESTS / "malformed" / name
    return [*whole, *(path.read_bytes() for path in sorted(known.glob("*")) if path.is_file())]


def _records() -> list[bytes]:
    whole = [path.read_bytes() for path in sorted(RECORDS.glob("*.slg.msgpack"))]
    return [*whole, *(_opened(data) for data in whole)]


def _opened(data: bytes) -> bytes:
    """Return a record with its planes not compressed."""
    import zstandard

    fields = msgpack.unpackb(data)
    decompress = zstandard.ZstdDecompressor().decompress
    fields["columns"] = {
        name: planes if isinstance(planes, bytes) else [decompress(plane) for plane in planes]
        for name, planes in fields["columns"].items()
    }
    packed: bytes = msgpack.packb(fields)
    return packed


def _shards() -> list[bytes]:
    whole = [path.read_bytes() for path in sorted(SET.glob("*.tar"))]
    parts = [
        [[m.name, data[m.offset : m.offset + m.size]] for m in members(memoryview(data))] for data in whole
    ]
    return [*whole, *(msgpack.packb(one) for one in parts)]


def _manifests() -> list[bytes]:
    files = [path.read_bytes() for path in sorted(SET.glob("*.json"))]
    return [*files, *descriptions().values(), *_headers()]


def descriptions() -> dict[str, bytes]:
    """Return golden slg.json with identities that can be read: that file's own lacks what readers need."""
    stored = decode_description((SET / "slg.json").read_bytes())
    identities = {
        "labels": {
            "label_type": "shared_tail_k3", "num_classes": 5, "num_crops": 8, "k": 3, "values": "log8",
            "tail_classes": 2, "temperature": 1.0, "class_subset": [0, 1, 2, 4, 8], "precision": "fp32",
            "teachers": [{"arch": "größer", "source": "timm", "input_size": 224, "weight": 1.0}],
            "extends": {"digest": "00ff", "first_crop": 4}, "extendable": True,
        },
        "embeddings": {
            "label_type": "embedding", "num_classes": 0, "num_crops": 8, "normalize": True,
            "embeddings": [
                {"name": "a", "dim": 16, "values": "int8"},
                {"name": "b", "dim": 48, "values": "lowrank", "min_cosine": 0.99},
            ],
        },
    }  # fmt: skip
    return {
        name: encode_description(replace(stored, identity=identity)) for name, identity in identities.items()
    }


def _headers() -> list[bytes]:
    found = []
    for path in sorted(SET.glob("*.tar")):
        data = path.read_bytes()
        last = list(members(memoryview(data)))[-1]
        found.append(data[last.offset : last.offset + last.size])
    return found


def _label_files() -> list[bytes]:
    import torch

    coords = np.array([[0.0, 0.25, 0.5, 0.5], [0.125, 0.0, 0.75, 1.0]], np.float32)
    flips = np.array([True, False])
    labels = np.array([[[3, 1], [0.5, 0.25]], [[7, 2], [0.75, 0.125]]], np.float32)
    found = []
    for value in (
        [coords, flips, labels],
        [coords.astype(np.float16), flips, labels[:, 0].astype(np.int64)],
        [torch.from_numpy(part) for part in (coords, flips, labels)],
    ):
        stream = io.BytesIO()
        torch.save(value, stream)
        with zipfile.ZipFile(stream) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            found += [stream.getvalue(), archive.read(name)]
    return [*found, *(pickle.dumps([coords, flips, labels], protocol) for protocol in (2, 4, 5))]
