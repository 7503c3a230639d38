"""Checks one record against what its set says: the plan, the identity, and the members beside it in the shard."""

from __future__ import annotations

from typing import Any

from slg_wds.console import counted
from slg_wds.errors import RecordError
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.plan import PlannedShard
from slg_wds.format.records.embeddings.fields import EMBEDDING, EMBEDDINGS
from slg_wds.format.records.embeddings.low_rank import LOW_RANK_VALUES, WORST
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.tail_sums import TAIL_SUMS, decode_tail_sums
from slg_wds.format.shards.shard import Shard
from slg_wds.labelset.labelset import LabelSet

ROUNDING_OF_COSINES = 1e-6  # of a stated cosine, by float32


def check_fields(fields: dict[str, Any], labels: LabelSet, part: PlannedShard, at: int) -> None:
    """Check that a record belongs to the planned image and is labelled as slg.json says. Raises RecordError."""
    identity = labels.identity
    target = int(part.targets[at])
    wanted: dict[str, Any] = {
        "key": part.keys[at],
        "path": part.paths[at],
        "target": target if target >= 0 else None,
        "coding": _coding(identity),
        "k": identity.k,
        "num_classes": identity.num_classes,
        "full": identity.label_type == "full",
        EMBEDDINGS: _embeddings_field(identity),
    }
    for name, value in wanted.items():
        if fields.get(name) != value and (value is not None or name == "target"):
            raise RecordError(f"its {name} is {fields.get(name)!r}, where {value!r} belongs")
    if identity.max_kl and fields["kl_mean"] > identity.max_kl * (1.0 + 1e-6):
        raise RecordError(f"its mean KL is {fields['kl_mean']:g}, above {identity.max_kl:g}")
    _check_cosines(fields, identity)
    if labels.description.image_checksums and "image_crc32" not in fields:
        raise RecordError("it has no checksum of its image, where slg.json says that all have")
    crops, base = identity.num_crops, identity.extends
    allowed = {crops, crops - base.first_crop} if base else {crops}
    if fields["num_crops"] not in allowed:
        raise RecordError(f"it has {counted(fields['num_crops'], 'crop')}, where {min(allowed)} belong")


def _embeddings_field(identity: Identity) -> list[list[Any]] | None:
    """Return the field `embeddings` that every record of a set has; None for a set of labels."""
    if identity.embeddings is None:
        return None
    return [[one["name"], one["dim"], one["values"]] for one in identity.embeddings]


def _check_cosines(fields: dict[str, Any], identity: Identity) -> None:
    """Check that low-rank embeddings state the cosine that the set asks for. Raises RecordError."""
    for one, stated in zip(identity.embeddings or [], fields.get(LOW_RANK_VALUES, []), strict=False):
        if "min_cosine" not in one:
            continue
        mean = one["min_cosine"]
        for what, cosine, least in (
            ("mean", stated[0], mean),
            ("least", stated[1], 1.0 - WORST * (1.0 - mean)),
        ):
            if cosine < least - ROUNDING_OF_COSINES:
                raise RecordError(f"its {what} cosine is {cosine:.7g}, below {least:g}")


def _coding(identity: Identity) -> str | None:
    """Return the coding of the set's records; None if the identity does not say it."""
    if identity.embeddings:
        return EMBEDDING
    return LOW_RANK if identity.label_type == LOW_RANK else identity.coding


def check_extras(shard: Shard, i: int, fields: dict[str, Any]) -> None:
    """Check the members beside the record, and the sums that an extendable set stores. Raises RecordError."""
    sample = shard.samples[i]
    wanted = (
        None if fields["target"] is None or sample.image is None else str(fields["target"]).encode("ascii")
    )
    if wanted != (bytes(shard.content(sample.target)) if sample.target else None):
        raise RecordError(f"its cls member does not agree with its target, {fields['target']}")
    if sample.image is not None and fields.get("image_crc32", sample.image_crc32) != sample.image_crc32:
        raise RecordError("the image beside it is not the one that was labelled")
    if TAIL_SUMS in fields["columns"]:
        decode_tail_sums(bytes(shard.content(sample.record)))
