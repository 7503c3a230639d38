"""The identity of a label set: all that decides its labels. Two runs that write into one set must agree on it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from slg_wds.errors import ManifestError, RecordError
from slg_wds.format.canonical import brief, canonical_json
from slg_wds.format.records.checks import MAX_FULL_CLASSES
from slg_wds.format.records.embeddings.fields import EMBEDDING, MAX_EMBEDDINGS, check_embedding
from slg_wds.format.records.embeddings.low_rank import LOW_RANK_VALUES
from slg_wds.format.records.tail import most_kept
from slg_wds.format.records.values import CODINGS

MAX_CLASSES, MAX_CROPS, MAX_SIDE = 1 << 24, 1 << 20, 1 << 14
Test = Callable[[Any], bool]


@dataclass(frozen=True)
class Base:
    """The label set that another one extends.

    Attributes:
        digest: its digest, hex.
        first_crop: the number of crops that it and its own bases have, so the first crop of the extending set.
    """

    digest: str
    first_crop: int


@dataclass(frozen=True, eq=False)
class Identity(Mapping[str, Any]):
    """What decides the labels of a set, as slg.json says it.

    As a mapping it is the stored JSON object, fields that this version does not know included: digests and
    comparisons are made from that. The fields that readers use are attributes. Each of these has its default
    where the stored object has null or lacks it, as labels from other programs may.

    Attributes:
        stored: the JSON object.
        label_type: the type asked for when the set was made, and the default rule of recovery.
        num_classes: classes of every distribution, C.
        num_crops: crops of each image, those of the sets that this one extends included.
        k: classes stored for each crop.
        coding: how probabilities are stored, one of CODINGS; "values" in JSON.
        tail_classes: the most classes that a shared tail may have; 0 for no tail.
        temperature: what the teachers' logits were divided by.
        class_subset: the teachers' numbers of the C classes, None for all of them.
        teachers: one JSON object per teacher.
        parents: one JSON object per label set that was merged into this one.
        crop_scale: least and largest share of the image's area that a crop has, [low, high].
        crop_ratio: least and largest ratio of width to height, [low, high].
        flip_probability: the probability with which a crop is mirrored.
        seed: decides the crops and the order of the images.
        views: how it was drawn what else is done to crops, as a JSON object; None where nothing was drawn.
        reference: the source of the crops where they were not drawn: another set or FKD's label files.
        precision: the arithmetic of the teachers: "fp32", "tf32", "bf16" or "fp16".
        decode: how images are decoded.
        resize: how crops are resized.
        embed_images: how images are embedded, as a JSON object; None where they lie outside the set.
        imported_from: the label files of another program that the set was made from, as a JSON object.
        extends: the set that holds the other crops; None for a set that stands alone.
        embeddings: of a set of embeddings, one JSON object for each: its "name", "dim" (numbers of each crop) and
            "values" (one of EMBEDDING_VALUES, or "lowrank" with the "min_cosine" of each image). None for a set of
            labels.
        normalize: whether embeddings were divided by their length before they were coded.
        bank_sha256: of labels over prototypes, the SHA-256 of the file of their bank, hex; None for other labels.
        extendable: whether records keep the sums that an extending set needs for exact tails.
        max_kl: of low-rank labels, the largest mean KL divergence of an image in nats; None for other types.
    """

    stored: Mapping[str, Any] = field(repr=False)
    label_type: str
    num_classes: int
    num_crops: int
    k: int | None = None
    coding: str | None = None
    tail_classes: int = 0
    temperature: float | None = None
    class_subset: list[int] | None = None
    teachers: list[dict[str, Any]] = field(default_factory=list)
    parents: list[dict[str, Any]] = field(default_factory=list)
    crop_scale: Any = None
    crop_ratio: Any = None
    flip_probability: Any = None
    seed: Any = None
    views: dict[str, Any] | None = None
    reference: Any = None
    precision: str | None = None
    decode: Any = None
    resize: Any = None
    embed_images: dict[str, Any] | None = None
    imported_from: dict[str, Any] | None = None
    extends: Base | None = None
    embeddings: list[dict[str, Any]] | None = None
    normalize: bool = False
    bank_sha256: str | None = None
    extendable: bool = False
    max_kl: float | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Identity:
        """Read an identity from its JSON object.

        Raises:
            ManifestError: a field that readers use has the wrong type or range; it is named.
        """
        _check(stored)
        names = (name for name in cls.__dataclass_fields__ if name != "stored")
        values = {name: stored.get("values" if name == "coding" else name) for name in names}
        known = {name: value for name, value in values.items() if value is not None}
        if "extends" in known:
            known["extends"] = Base(known["extends"]["digest"], known["extends"]["first_crop"])
        return cls(dict(stored), **known)

    @property
    def largest_tail(self) -> int:
        """The most classes that a shared tail of this set keeps, by its crops and classes too."""
        return most_kept(self.tail_classes, self.num_crops, self.k or 0, self.num_classes)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object exactly as it is stored."""
        return dict(self.stored)

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Return a line "name: mine != theirs" for every field that differs from `other`'s."""
        return differences(self.to_json(), dict(other))

    def __getitem__(self, name: str) -> Any:
        return self.stored[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def digest(plan: bytes, identity: Mapping[str, Any]) -> str:
    """Return the digest of a label set.

    Args:
        plan: the bytes of the file `plan`.
        identity: the identity as stored.

    Returns:
        SHA-256 of the SHA-256 of the plan and that of the identity's canonical JSON, hex.
    """
    return digest_of(hashlib.sha256(plan).hexdigest(), identity)


def digest_of(plan_sha256: str, identity: Mapping[str, Any]) -> str:
    """Return the digest of a label set, given the SHA-256 of its plan in hex; see `digest`."""
    parts = (bytes.fromhex(plan_sha256), hashlib.sha256(canonical_json(dict(identity))).digest())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def differences(a: Any, b: Any, name: str = "") -> list[str]:
    """Return a line "name: a != b" for every field in which two JSON values differ; inner names are dotted."""
    if isinstance(a, dict) and isinstance(b, dict):
        dotted = f"{name}." if name else ""
        return [
            line
            for key in sorted({*a, *b})
            for line in differences(a.get(key, _ABSENT), b.get(key, _ABSENT), f"{dotted}{key}")
        ]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [line for i, (x, y) in pairs for line in differences(x, y, f"{name}[{i}]")]
    if isinstance(a, bool) == isinstance(b, bool) and a == b:
        return []
    return [f"{name}: {_shown(a)} != {_shown(b)}"]


_ABSENT = object()


def _shown(value: Any) -> str:
    return "absent" if value is _ABSENT else repr(value)


def _whole(low: int, high: int) -> Test:
    return lambda value: type(value) is int and low <= value <= high


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _text(value: Any) -> bool:
    return type(value) is str


def _object(value: Any) -> bool:
    return type(value) is dict


def _classes(value: Any) -> bool:
    return type(value) is list and all(map(_whole(0, MAX_CLASSES - 1), value))


def _objects(value: Any) -> bool:
    return type(value) is list and all(map(_object, value))


def _embeddings(value: Any) -> bool:
    if not _objects(value) or not 1 <= len(value) <= MAX_EMBEDDINGS:
        return False
    kinds = {"name": str, "dim": int, "values": str}
    if any(type(one.get(name)) is not kind for one in value for name, kind in kinds.items()):
        return False
    try:
        for one in value:
            check_embedding(one["name"], one["dim"], one["values"])
            least = one.get("min_cosine")
            if (one["values"] == LOW_RANK_VALUES) != (least is not None and _number(least) and 0 < least < 1):
                return False
    except RecordError:
        return False
    return len({one["name"] for one in value}) == len(value)


_NEEDED: dict[str, Test] = {
    "label_type": _text,
    "num_classes": _whole(0, MAX_CLASSES),
    "num_crops": _whole(0, MAX_CROPS),
}
# These may be missing or null, as in labels that another program made.
_OPTIONAL: dict[str, Test] = {
    "k": _whole(1, MAX_CLASSES),
    "values": lambda value: value in CODINGS,
    "tail_classes": _whole(0, MAX_CLASSES),
    "temperature": lambda value: _number(value) and value > 0,
    "class_subset": _classes,
    "teachers": _objects,
    "parents": _objects,
    "precision": _text,
    "views": _object,
    "embed_images": _object,
    "imported_from": _object,
    "extends": lambda value: (
        _object(value) and _text(value.get("digest")) and _whole(0, MAX_CROPS)(value.get("first_crop"))
    ),
    "embeddings": _embeddings,
    "normalize": lambda value: type(value) is bool,
    "bank_sha256": _text,
    "extendable": lambda value: type(value) is bool,
    "max_kl": lambda value: _number(value) and value > 0,
}
_TEACHER: dict[str, Test] = {
    "input_size": _whole(1, MAX_SIDE),
    "interpolation": _text,
    "arch": _text,
    "source": _text,
    "weight": _number,
}


def _check(stored: Mapping[str, Any]) -> None:
    for name, test in _NEEDED.items():
        if not test(stored.get(name)):
            raise _wrong(name, stored.get(name))
    _check_optional(stored, _OPTIONAL, "")
    k, num_classes = stored.get("k") or 1, stored["num_classes"]
    if (stored["label_type"] == EMBEDDING) != (stored.get("embeddings") is not None):
        raise _wrong("embeddings", stored.get("embeddings"))
    if stored["label_type"] == EMBEDDING:
        k = 0
    elif not num_classes:
        raise _wrong("num_classes", num_classes)
    if k > num_classes:
        raise ManifestError(f"k of the identity is {k}, of {num_classes} classes")
    if stored["label_type"] == "full" and num_classes > MAX_FULL_CLASSES:
        raise _wrong("num_classes", num_classes)
    for number, teacher in enumerate(stored.get("teachers") or []):
        _check_optional(teacher, _TEACHER, f"teachers[{number}].")


def _check_optional(fields: Mapping[str, Any], tests: dict[str, Test], before: str) -> None:
    for name, test in tests.items():
        value = fields.get(name)
        if value is not None and not test(value):
            raise _wrong(before + name, value)


def _wrong(name: str, value: Any) -> ManifestError:
    return ManifestError(f"{name} of the identity is {brief(value)}")
