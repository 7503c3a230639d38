"""What a worker writes to a label set that has been begun: shards, index parts and at the end _info.json."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from slg_wds.errors import FormatError, LabelSetError, ManifestError, NotFoundError
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.description import decode_description
from slg_wds.format.manifest.identity import digest_of
from slg_wds.format.manifest.index import MAX_SHARD_BYTES, build_index, decode_index, encode_index
from slg_wds.format.manifest.info import Info, encode_info
from slg_wds.format.shards.shard import Shard, read_shard
from slg_wds.labelset.objects import DESCRIPTION, INDEX, INFO, READERS, located
from slg_wds.labelset.stored import StoredSet
from slg_wds.store import Store


def commit_shard(labels: StoredSet, number: int, data: bytes) -> bool:
    """Publish a shard and its index part, once the shard has been checked whole.

    Args:
        labels: the set.
        number: the number of the shard.
        data: its bytes.

    Returns:
        False if another worker's shard was there first; then `data` is dropped.

    Raises:
        LabelSetError: the shard is over 2 GiB or not the one that was made, or another set has taken this one's place.
            Nothing was published.
        StoreError: the store cannot be written to.
    """
    name = labels.shard_name(number)
    if len(data) > MAX_SHARD_BYTES:
        raise LabelSetError(
            f"the shard has {len(data)} bytes, over 2 GiB", shard=name, hint="lower --samples-per-shard"
        )
    shard = _checked(labels, number, data)
    _check_place(labels)
    made = labels.store.create(name, data)
    if made:
        _put_index(labels, number, shard)
    return made


def _checked(labels: StoredSet, number: int, data: bytes) -> Shard:
    """Read a shard before it is published: memory that fails must not become a shard that is final."""
    part = labels.plan.shard(number)
    try:
        shard = read_shard(data)
        shard.check(labels.digest, number, part.name, part.keys)
    except FormatError as error:
        raise LabelSetError(
            f"the shard was damaged before it was published: {error.message}",
            url=labels.url,
            shard=labels.shard_name(number),
            hint="nothing was published; run the same command again, and test this machine's memory",
        ) from error
    return shard


def _check_place(labels: StoredSet) -> None:
    """Refuse to write among the shards of another set, which may have been begun here since this run looked."""
    what = "another label set is in this place since this run began"
    try:
        data = labels.store.read(DESCRIPTION, MAX_JSON_BYTES)
    except NotFoundError:
        what = "the label set has been removed since this run began"
    else:
        found = located(decode_description, data, labels.store.url_of(DESCRIPTION))
        same_digest = digest_of(found.plan_sha256, found.identity) == labels.digest
        if same_digest and found.form == labels.description.form:
            return
    raise LabelSetError(what, url=labels.url, hint="nothing was written to it; start this run anew")


def _put_index(labels: StoredSet, number: int, shard: Shard) -> int:
    """Write the index part of a shard and return its number of samples."""
    index = build_index(shard, labels.plan, number)
    _replace(labels.store, f"{INDEX}/{index.name}", encode_index(index))
    return len(index.records)


def _replace(store: Store, name: str, data: bytes) -> None:
    """Publish a pure function of the shards in place of one that may be there, made from shards since removed."""
    if store.create(name, data):
        return
    with contextlib.suppress(NotFoundError):  # another worker is replacing it too
        if store.size(name) == len(data) and store.read(name) == data:
            return
    store.delete(name)
    store.create(name, data)


def reopen_set(labels: StoredSet) -> None:
    """Remove _info.json if shards are missing all the same: they were removed to be made again."""
    if labels.finished() and labels.missing():
        labels.store.delete(INFO)


def finish_set(labels: StoredSet) -> bool:
    """Write the missing index parts and _info.json if every shard exists.

    Index parts and _info.json that exist are compared with the shards' sizes and the set's digest, and replaced if
    they disagree.

    Returns:
        Whether every shard exists.

    Raises:
        FormatError: a shard without a right index part is damaged or another set's.
    """
    sizes = labels.present()
    if len(sizes) < labels.num_shards:
        return False
    # Tens of thousands of small reads, each of which is mostly waiting.
    with ThreadPoolExecutor(READERS) as pool:
        found = list(
            pool.map(lambda number: _indexed(labels, number, sizes[number]), range(labels.num_shards))
        )
    lengths = [
        _index_again(labels, number) if length is None else length for number, length in enumerate(found)
    ]
    files = [labels.shard_name(number) for number in range(labels.num_shards)]
    _replace(labels.store, INFO, encode_info(Info(labels.split, files, lengths)))
    if labels.missing():  # one was removed while the others were counted
        labels.store.delete(INFO)
        return False
    return True


def _indexed(labels: StoredSet, number: int, size: int) -> int | None:
    """Return the samples of a shard of `size` bytes by its index part; None if that is missing or another shard's."""
    try:
        index = located(decode_index, *labels.index_part(number))
    except (NotFoundError, ManifestError):
        return None
    right = (index.set_digest, index.shard, index.bytes) == (labels.digest, number, size)
    return len(index.records) if right else None


def _index_again(labels: StoredSet, number: int) -> int:
    """Make the index part of a shard that exists, and return the shard's number of samples."""
    try:
        return _put_index(labels, number, labels.shard(number))
    except FormatError as error:
        error.hint = error.hint or "slg-wds verify --delete-damaged removes it, to be made again"
        raise
