"""StoredSet: which objects of a label set exist in its store, and what they hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.errors import NotFoundError, UnsupportedStoreError
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.description import Description
from slg_wds.format.manifest.index import MAX_SHARD_BYTES, ShardIndex, build_index, decode_index
from slg_wds.format.manifest.info import MAX_INFO_BYTES, decode_info
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.shards.header import ShardHeader, decode_header
from slg_wds.format.shards.shard import (
    EncodedSample,
    Sample,
    Shard,
    check_payload,
    encode_sample,
    encode_shard,
    read_shard,
)
from slg_wds.format.shards.tar import members, padded
from slg_wds.labelset.objects import INDEX, INFO, READERS, located
from slg_wds.store import Store


@dataclass(frozen=True)
class StoredSet:
    """A label set as bytes: its shards, their index parts and _info.json.

    Attributes:
        store: where the set is.
        plan: which image is which sample of which shard.
        description: the content of slg.json.
        digest: the set's digest, hex.
    """

    store: Store
    plan: Plan
    description: Description
    digest: str

    @property
    def url(self) -> str:
        """The URL or folder of the set."""
        return self.store.url

    @property
    def num_shards(self) -> int:
        """Number of planned shards."""
        return self.plan.num_shards

    @property
    def split(self) -> str:
        """The name of the split."""
        return self.plan.split

    def shard_name(self, number: int) -> str:
        """Return the name of a shard in the store."""
        return f"{self.plan.shard_names[number]}.tar"

    def exists(self, number: int) -> bool:
        """Return whether a shard exists, and so is whole and final. Raises StoreError if a folder has its name."""
        return self.store.taken(self.shard_name(number))

    def missing(self) -> list[int]:
        """Return the numbers of the shards that do not exist, by one listing, or over http by one request for each."""
        try:
            present = self.present()
        except UnsupportedStoreError:  # http: nothing can be listed
            if self.finished():  # written last, so every shard is there
                return []
            return [number for number in range(self.num_shards) if not self.exists(number)]
        return [number for number in range(self.num_shards) if number not in present]

    def present(self) -> dict[int, int]:
        """Return the size in bytes of each shard that exists, by its number, in order. Takes one listing."""
        sizes = {entry.name: entry.size for entry in self.store.list(deep=False)}
        names = map(self.shard_name, range(self.num_shards))
        return {number: sizes[name] for number, name in enumerate(names) if name in sizes}

    def finished(self) -> bool:
        """Return whether _info.json exists, which says that every shard does."""
        return self.store.size(INFO) is not None

    def shard(self, number: int) -> Shard:
        """Read a shard whole; check every byte of it, and that it is the planned one.

        Raises:
            NotFoundError: it does not exist.
            FormatError: it is damaged, or another one.
        """
        name = self.shard_name(number)
        shard = read_shard(self.store.read(name, MAX_SHARD_BYTES), url=self.url, shard=name)
        part = self.plan.shard(number)
        shard.check(self.digest, number, part.name, part.keys)
        return shard

    def index(self, number: int) -> ShardIndex:
        """Read the index part of a shard; if it is missing, make it from the shard."""
        try:
            data, url = self.index_part(number)
        except NotFoundError:
            return build_index(self.shard(number), self.plan, number)
        return located(decode_index, data, url)

    def index_part(self, number: int) -> tuple[bytes, str]:
        """Read the bytes of a shard's index part; return them and their URL. Raises NotFoundError if it is missing."""
        name = f"{INDEX}/{self.plan.shard_names[number]}"
        return self.store.read(name, MAX_JSON_BYTES), self.store.url_of(name)

    def trailer(self, number: int, index: ShardIndex) -> ShardHeader:
        """Read which images a shard leaves out and how it was made, by a range of the shard: its last member alone.

        Args:
            number: the number of the shard.
            index: the shard's index.

        Raises:
            FormatError, StoreError: the member cannot be read.
        """
        embedded = index.images if index.images and index.image_shard is None else []
        end = padded(max((place[0] + place[1] for place in [*index.records, *embedded]), default=0))
        tail = memoryview(self.store.read_range(self.shard_name(number), end, index.bytes - end))
        member = next(iter(members(tail)))
        header, _ = decode_header(tail[member.offset : member.offset + member.size], member.name)
        return header

    def record_bytes(self, number: int, position: int, index: ShardIndex | None = None) -> bytes:
        """Read the bytes of one record by a range of its shard, and check them against the index.

        Args:
            number: the number of the shard.
            position: the position of the record in the shard.
            index: the shard's index; None to read that first.
        """
        name = self.shard_name(number)
        offset, size, crc32 = (index or self.index(number)).records[position]
        data = self.store.read_range(name, offset, size)
        check_payload(data, size, crc32, url=self.url, shard=name)
        return data

    def count_left_out(self) -> dict[int, int]:
        """Return how many images each shard leaves out; one that leaves out none may be absent.

        Raises:
            FormatError, StoreError: _info.json, or an index part of a set without one, cannot be read.
        """
        if not self.finished():
            missing = set(self.missing())
            there = [number for number in range(self.num_shards) if number not in missing]
            return {number: len(keys) for number, keys in self.left_out_of(there).items()}
        info = located(decode_info, self.store.read(INFO, MAX_INFO_BYTES), self.store.url_of(INFO))
        lacking = self.plan.shard_sizes - np.array(info.shard_lengths)
        return {int(number): int(lacking[number]) for number in np.flatnonzero(lacking)}

    def left_out_of(self, numbers: Sequence[int]) -> dict[int, list[str]]:
        """Return the keys of the images that each of these shards leaves out. Raises FormatError, StoreError."""
        with ThreadPoolExecutor(READERS) as pool:
            keys = list(pool.map(lambda number: self.index(number).left_out, numbers))
        return dict(zip(numbers, keys, strict=True))

    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode the members of a sample, in any thread. In a set without checksums of images, these are left out.

        Raises:
            RecordError, ShardError: see `shard.encode_sample`.
        """
        if not self.description.image_checksums:
            record = dataclasses.replace(sample.record, image_crc32=None, source_crc32=None)
            sample = dataclasses.replace(sample, record=record)
        return encode_sample(sample)

    def encode_shard(
        self,
        number: int,
        samples: Iterable[EncodedSample],
        left_out: Sequence[Mapping[str, str]],
        provenance: Mapping[str, Any],
    ) -> bytes:
        """Encode a shard in the form of this set.

        Args:
            number: the number of the shard.
            samples: its samples in the order of the plan.
            left_out: key, path and reason of each planned image that has no sample.
            provenance: JSON values: what could change the last bits of a probability.
        """
        name = self.plan.shard_names[number]
        header = ShardHeader(self.digest, number, name, [dict(entry) for entry in left_out], dict(provenance))
        return encode_shard(samples, header, self.description.trailer)
