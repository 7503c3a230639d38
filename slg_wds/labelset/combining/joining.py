"""A label set and the sets that extend it, read as one: which sets belong together, and how records are joined.

Such sets form a chain: a base, a set that extends it with more crops, perhaps one that extends that, and so on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from slg_wds.arrays import F64, I64
from slg_wds.errors import LabelSetError, UsageError
from slg_wds.format.manifest.identity import digest_of
from slg_wds.format.records.embeddings.by_name import joined_embeddings, of_crops
from slg_wds.format.records.low_rank.blocks import joined
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import Tail, build_tail
from slg_wds.format.records.views import joined_views
from slg_wds.labelset.labelset import LabelSet


def extends(labels: LabelSet) -> str | None:
    """Return the digest of the set that this one extends, or None."""
    base = labels.identity.extends
    return None if base is None else base.digest


def refuse_extending(labels: LabelSet) -> None:
    """Raise UsageError for a set that extends another one: alone, it lacks crops."""
    if extends(labels):
        raise UsageError(
            "the label set holds only the crops that the set it extends lacks",
            url=labels.url,
            hint="join both first: slg-wds ensemble OLD NEW --save-path ALL",
        )


def chains(sets: Sequence[LabelSet], form: str = "OLD NEW") -> list[list[LabelSet]]:
    """Group sets into chains.

    Args:
        sets: label sets, in any order.
        form: how the caller takes two sets, for the message.

    Returns:
        One chain for each set that extends none, in their order: that set, then the sets that extend it.

    Raises:
        UsageError: a set extends one that is not given, or is given twice.
    """
    extended = {extends(labels): labels for labels in sets if extends(labels)}
    found = []
    for labels in sets:
        if extends(labels):
            continue
        chain = [labels]
        while chain[-1].digest in extended:
            chain.append(extended[chain[-1].digest])
        found.append(chain)
    used = {id(labels) for chain in found for labels in chain}
    for labels in sets:
        if id(labels) not in used:
            raise UsageError(
                f"{labels.url} extends another label set, which must be given too, and each once",
                hint=f"give both: {form}",
            )
    return found


def joined_digest(last: LabelSet) -> str:
    """Return the digest of the chain that ends with `last`: that of the same labels made in one run.

    Low-rank labels made in one run are others, since their crops are coded together. Then it is the digest of `last`,
    which covers that of the set that it extends.
    """
    if last.identity.max_kl is not None:
        return last.digest
    identity = {name: value for name, value in last.identity.items() if name != "extends"}
    return digest_of(last.description.plan_sha256, identity)


def tail_covers_all(last: LabelSet) -> bool:
    """Return whether the tails in the records of a chain's last set cover the crops of all its sets."""
    return last.identity.extendable or not last.identity.tail_classes


def join_records(parts: Sequence[Record], last: LabelSet) -> Record:
    """Join the records of an image from the sets of a chain to one record of all its crops.

    The last part's tail is taken if it covers all crops. If not, the tail is made from the mean of the parts' tails,
    weighted by their crops: what one run would have stored, except for the rounding of the parts' tails and the
    classes that they do not keep.

    Args:
        parts: the image's record in each set of the chain that has one, in the order of the chain.
        last: the last set of the chain.

    Raises:
        LabelSetError: the parts differ in size, target or image file, or crops are missing.
    """
    first, total = parts[-1], sum(part.num_crops for part in parts)
    if not extends(last):
        return first
    if len({(part.size, part.target) for part in parts}) > 1:
        raise LabelSetError(
            "the sets to join differ in the size or target of this image", url=last.url, key=first.key
        )
    check_same_image(first.key, [part.image_crc32 for part in parts], last.url)
    if total != last.num_crops:
        raise LabelSetError(
            f"the sets to join hold {total} of its {last.num_crops} crops", url=last.url, key=first.key
        )
    if len(parts) == 1:
        return first
    tail = first.tail if tail_covers_all(last) else _mean_tail(parts, last.identity.tail_classes, total)
    return dataclasses.replace(join_crops(parts), tail=tail)


def check_same_image(key: str, crc32s: Iterable[int | None], url: str) -> None:
    """Raise LabelSetError if parts of an image's labels come from different files; None in `crc32s` is not known."""
    if len(set(crc32s) - {None}) > 1:
        raise LabelSetError("the sets to join were made from different files of this image", url=url, key=key)


def take_crops(record: Record, rows: I64) -> Record:
    """Return a record with some of its crops, in the order of `rows`. Its tail stays as it is."""
    return dataclasses.replace(
        record,
        crops=record.crops[rows],
        flips=record.flips[rows],
        index=record.index[rows],
        value=record.value[rows],
        low_rank=None if record.low_rank is None else record.low_rank.of(rows),
        views=None if record.views is None else record.views[rows],
        embeddings=of_crops(record.embeddings, rows),
    )


def join_crops(parts: Sequence[Record]) -> Record:
    """Return the last part with the crops of all parts, in their order. Its tail stays as it is."""
    last = parts[-1]
    index = last.index if last.full else np.concatenate([part.index for part in parts])
    if last.full:
        crops = sum(part.num_crops for part in parts)
        index = np.broadcast_to(np.arange(last.num_classes), (crops, last.num_classes))
    return dataclasses.replace(
        last,
        crops=np.concatenate([part.crops for part in parts]),
        flips=np.concatenate([part.flips for part in parts]),
        index=index,
        value=np.concatenate([part.value for part in parts]),
        low_rank=joined([part.low_rank for part in parts if part.low_rank]) if last.low_rank else None,
        views=joined_views([part.views for part in parts]),
        embeddings=joined_embeddings([part.embeddings for part in parts]),
    )


def _mean_tail(parts: Sequence[Record], tail_classes: int, total: int) -> Tail | None:
    if parts[0].full or parts[0].coding == "none":
        return None
    v = sum((tail_vector(part) * part.num_crops for part in parts), np.zeros(parts[0].num_classes))
    return build_tail(v / total, tail_classes, total, parts[0].k)


def tail_vector(record: Record) -> F64:
    """Return v, float64 [C]: the mean probability outside the top-k, as the tail stores it, or even without a tail."""
    C, tail = record.num_classes, record.tail
    if tail is not None:
        v = np.full(C, tail.rest, np.float64)
        v[tail.classes] = tail.probs
        return v
    share_M = np.maximum(0.0, 1.0 - record.value.sum(axis=1, dtype=np.float64)) / max(C - record.k, 1)
    v = np.full(C, share_M.mean())
    np.subtract.at(v, record.index, np.broadcast_to(share_M[:, None] / len(share_M), record.index.shape))
    return np.maximum(v, 0.0)
