"""One image of a set: where it lies, and the labels of its crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import UsageError
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.records.embeddings.cosines import similarity
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding, StatedCosine
from slg_wds.format.records.record import Record
from slg_wds.format.recovery.distributions import as_full
from slg_wds.labelset.class_names import brief_names, class_names, imagenet_words
from slg_wds.labelset.labelset import LabelSet
from slg_wds.transforms.replaying import words_of

SHOWN_CLASSES = 5  # classes shown of full labels, and of the tail


@dataclass(frozen=True)
class InspectedImage:
    """One image of a set.

    Attributes:
        record: its labels.
        number: its number in the plan.
        shard: name of its shard.
        target_name: name of its target; None without a target or names.
        names: names of the labels' classes; None if nothing names them.
        keys: the keys of the set's plan.
    """

    record: Record
    number: int
    shard: str
    target_name: str | None
    names: list[str] | None
    keys: Sequence[str] = ()

    @cached_property
    def _stored(self) -> Record:
        """The record; one with low-rank labels as one with full labels."""
        return as_full(self.record)

    def name(self, number: int) -> str | None:
        """Return the name of a class of the labels, given by its number; None if it has none."""
        return self.names[number] if self.names else None

    def brief(self, number: int) -> str:
        """Return the name of a class of the labels for where there is little room."""
        return self._brief[number] if self._brief else f"class {number}"

    @cached_property
    def _brief(self) -> list[str] | None:
        return brief_names(self.names) if self.names else None

    def key_of(self, number: int) -> str:
        """Return the key of the image that has this number in the plan; the number itself if none has."""
        return self.keys[number] if number < len(self.keys) else f"image {number}"

    @property
    def is_hard(self) -> bool:
        """Whether only the most probable class of each crop is stored, and no probability."""
        return self.record.coding == "none"

    def top(self, crop: int) -> list[tuple[int, float | None]]:
        """Return stored classes of a crop as (class, probability), the most probable first; a few of full labels."""
        record = self._stored
        if self.is_hard:
            return [(int(record.index[crop, 0]), None)]
        value = record.value[crop]
        order = np.argsort(-value, kind="stable")[:SHOWN_CLASSES] if record.full else np.arange(record.k)
        return [(int(record.index[crop, at]), float(value[at])) for at in order.tolist()]

    @property
    def shows_some(self) -> bool:
        """Whether `top` gives only some of the stored classes, as it does of full labels."""
        return self._stored.full

    def outside(self, crop: int) -> float | None:
        """Return the probability of all classes that are not stored, in 0..1; None for hard labels."""
        if self.is_hard:
            return None
        if self.record.embeddings is not None:
            return 0.0
        return max(0.0, 1.0 - float(self._stored.value[crop].sum(dtype=np.float64)))

    def others(self, crop: int) -> float:
        """Return the probability of all classes that `top` does not give, in 0..1."""
        return max(0.0, 1.0 - sum(p or 0.0 for _, p in self.top(crop)))

    def similarities(self) -> dict[str, float]:
        """Return the mean cosine between two crops of the image, of each embedding by its name."""
        return {name: similarity(one.vectors) for name, one in (self.record.embeddings or {}).items()}

    def stated_cosines(self) -> dict[str, StatedCosine]:
        """Return what is stated of each low-rank embedding, by its name."""
        parts = (self.record.embeddings or {}).items()
        return {name: one.cosine for name, one in parts if isinstance(one, LowRankEmbedding)}

    def lengths(self, crop: int) -> dict[str, float]:
        """Return the length of each embedding of a crop, by its name."""
        parts = (self.record.embeddings or {}).items()
        return {name: float(np.linalg.norm(one[crop : crop + 1].vectors)) for name, one in parts}

    def tail(self) -> list[tuple[int, float]]:
        """Return (class, probability) of the most probable classes in the shared tail."""
        tail = self.record.tail
        if tail is None:
            return []
        order = np.argsort(-tail.probs, kind="stable")[:SHOWN_CLASSES]
        return [(int(tail.classes[at]), float(tail.probs[at])) for at in order.tolist()]


def find_image(labels: LabelSet, key: str) -> InspectedImage:
    """Find the labels of an image.

    Args:
        labels: the label set.
        key: the image's key, or its path below the images' folder.

    Raises:
        UsageError: the set plans no such image.
        LabelSetError: the image has no labels, or none yet.
        FormatError, StoreError: its record cannot be read.
    """
    number = find_string(labels.plan.keys, key)
    number = find_string(labels.plan.paths, key) if number is None else number
    if number is None:
        raise UsageError(
            f"no image of the set has the key or path {key!r}", url=labels.url, hint=labels.example_key
        )
    record = labels[number]
    name = labels.shard_name(labels.plan.place(number)[0])
    target = target_name(labels, record.target)
    return InspectedImage(record, number, name, target, class_names(labels), labels.plan.keys)


def find_string(column: StringColumn, text: str) -> int | None:
    """Return the first position of a string in a column; None if it is not there.

    No string of the column is decoded. Those of the right length are compared byte by byte, from the end, where they
    differ most.
    """
    target = text.encode("utf-8", "surrogatepass")
    places: NDArray[np.int64] = np.flatnonzero(column.lengths == len(target))
    data = np.frombuffer(column.blob, np.uint8)
    starts = column.starts[places]
    for at in range(len(target) - 1, -1, -1):
        if not len(places):
            return None
        same = data[starts + at] == target[at]
        places, starts = places[same], starts[same]
    return int(places[0]) if len(places) else None


def target_name(labels: LabelSet, target: int | None) -> str | None:
    """Return the name of a target: from the class folders, else from the labels' classes; None if neither names it."""
    if target is None:
        return None
    given = labels.description.class_names
    names = class_names(labels) if given is None else given
    if names is None or target >= len(names):
        return None
    return imagenet_words().get(names[target], names[target]) or None


def image_dict(found: InspectedImage, crops: int) -> dict[str, Any]:
    """Return the image as plain values for JSON, with the first `crops` of its crops."""
    record, stated = found.record, found.stated_cosines()
    return {
        "key": record.key,
        "path": record.path,
        "number": found.number,
        "shard": found.shard,
        "target": record.target,
        "target_name": found.target_name,
        "height": record.size[0],
        "width": record.size[1],
        "num_crops": record.num_crops,
        **({"kl": asdict(record.low_rank.kl)} if record.low_rank else {}),
        "tail": _classes(found, found.tail()),
        **({} if record.embeddings is None else {"similarity_of_crops": found.similarities()}),
        **({"cosine": {name: asdict(one) for name, one in stated.items()}} if stated else {}),
        "crops": [_crop_dict(found, crop) for crop in range(min(crops, record.num_crops))],
    }


def _crop_dict(found: InspectedImage, crop: int) -> dict[str, Any]:
    record = found.record
    return {
        "crop": crop,
        "box": record.crops[crop].tolist(),
        "flip": bool(record.flips[crop]),
        **({} if record.views is None else {"views": words_of(record.views, crop, found.key_of)}),
        "classes": _classes(found, found.top(crop)),
        "outside": found.outside(crop),
        **({} if record.embeddings is None else {"lengths": found.lengths(crop)}),
    }


def _classes(found: InspectedImage, pairs: Sequence[tuple[int, float | None]]) -> list[dict[str, Any]]:
    return [{"class": number, "name": found.name(number), "probability": p} for number, p in pairs]
