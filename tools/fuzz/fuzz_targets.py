"""What `tools/fuzz/fuzz.py` calls with bytes that no writer made, one function for each decoder.

Each tries an input in several ways and returns what came of each: the decoded value, or the error of slg_wds that
refused the bytes. Any other exception is a finding. So is a value that another reader reads differently, or that cannot
be encoded again. Wrong checksums would end most tries early, so every input is tried twice: as it is, and as the
content of a file with correct checksums and frames.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgpack
import numpy as np

from slg_wds.errors import RecordError, SlgWdsError
from slg_wds.format.canonical import canonical_json, pretty_json, seal
from slg_wds.format.frames import compress
from slg_wds.format.manifest.description import decode_description
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.manifest.index import ShardIndex, decode_index, encode_index
from slg_wds.format.manifest.info import Info, decode_info
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from slg_wds.format.records.decoding import decode_record, unpack_record
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.low_rank.rows import LowRankRows
from slg_wds.format.records.record import Record
from slg_wds.format.records.rows import decode_rows
from slg_wds.format.records.tail_sums import decode_tail_sums
from slg_wds.format.records.views import same_views
from slg_wds.format.shards.header import ShardHeader, decode_header, names_crc32
from slg_wds.format.shards.names import TRAILERS
from slg_wds.format.shards.shard import Shard, read_shard
from slg_wds.format.shards.tar import ARCHIVE_UNIT, BLOCK, member_header
from slg_wds.interop.fkd import read_label_file
from slg_wds.verification.records import all_sound

Found = TypeVar("Found")
MOST_NUMBERS = 1 << 22  # of a record whose distributions are recovered
MOST_CROPS = 4096  # of a record that all readers are compared on


def record(data: bytes) -> list[Any]:
    """Read a record; if its planes are not compressed, also with frames around them."""
    outcomes = [_tried(_decoded_record, data, _check_record)]
    fields = _unpacked(data)
    if isinstance(fields, dict):
        columns = fields.get("columns")
        if isinstance(columns, dict):
            fields["columns"] = {name: _fitting(name, planes) for name, planes in columns.items()}
        outcomes.append(_tried(_decoded_record, _packed(fields), _check_record))
    return outcomes


def _fitting(name: str, planes: Any) -> Any:
    """Return a column with frames around its planes; low-rank labels with the CRC-32 of what they are."""
    if name != "low_rank" or not isinstance(planes, bytes):
        return _framed(planes)
    return zlib.crc32(planes[4:]).to_bytes(4, "little") + planes[4:]


def _decoded_record(data: bytes) -> Record:
    """Decode a record; check that what is refused here, verify and the loader refuse too."""
    try:
        return decode_record(data)
    except RecordError:
        with contextlib.suppress(SlgWdsError):
            fields = unpack_record(data)
            assert not all_sound([fields], 1e30), "verify takes what cannot be read"
            rows = np.arange(min(fields["num_crops"], MOST_CROPS))[None]
            decode_rows([data], rows)
            assert rows.size < fields["num_crops"], "the loader takes what cannot be read"
        raise


def _check_record(data: bytes, found: Record) -> None:
    """Check that the loader reads the same, and that a record is the same once it is encoded and decoded again."""
    # The loader also refuses damaged frames of columns without numbers.
    with contextlib.suppress(RecordError):
        _check_rows(data, found)
    decode_tail_sums(data)
    _check_again(found, decode_record(encode_record(found)))


def _check_rows(data: bytes, found: Record) -> None:
    rows = np.arange(min(found.num_crops, MOST_CROPS))
    by_loader = decode_rows([data], rows[None])
    assert np.array_equal(by_loader.boxes[0], found.crops[rows])
    assert np.array_equal(by_loader.value[0], found.value[rows])
    assert by_loader.index is None or np.array_equal(by_loader.index[0], found.index[rows])
    assert same_views(
        *(None if v is None else v[at] for v, at in ((by_loader.views, 0), (found.views, rows)))
    )
    _check_embeddings(found, by_loader.embeddings, rows)
    _check_low_rank(found, by_loader.low_rank, rows)


def _check_embeddings(found: Record, by_loader: dict[str, Any] | None, rows: Any) -> None:
    assert (found.embeddings is None) == (by_loader is None)
    for name, vectors in (by_loader or {}).items():
        whole = found.embeddings[name][rows]
        if isinstance(whole, LowRankEmbedding):  # sums in another order differ, much where they cancel
            assert np.isfinite(vectors).all() and np.isfinite(whole.vectors).all()
            assert (whole.lengths > 0)[vectors[0].any(axis=-1)].all()
        else:
            assert np.array_equal(vectors[0], whole.vectors)


def _check_low_rank(found: Record, by_loader: LowRankRows | None, rows: Any) -> None:
    assert (found.low_rank is None) == (by_loader is None)
    if found.low_rank is None or by_loader is None:
        return
    coefficients = found.low_rank.coefficients[rows]
    assert np.array_equal(by_loader.coefficients[0], coefficients[:, : by_loader.coefficients.shape[-1]])
    if found.num_crops * found.num_classes < MOST_NUMBERS:
        with np.errstate(all="ignore"):
            assert found.low_rank.distributions().shape[0] == found.num_crops


def _check_again(found: Record, again: Record) -> None:
    assert (again.image_crc32, again.source_crc32) == (found.image_crc32, found.source_crc32)
    assert np.array_equal(again.value, found.value) and np.array_equal(again.index, found.index)
    assert same_views(again.views, found.views)
    for name, one in (found.embeddings or {}).items():
        assert np.array_equal(again.embeddings[name].vectors, one.vectors)
    if found.low_rank is not None:
        assert again.low_rank is not None
        assert np.array_equal(again.low_rank.coefficients, found.low_rank.coefficients)


def shard(data: bytes) -> list[Any]:
    """Read a shard; a msgpack list of [name, content] is also tried as a tar of these members."""
    outcomes = [_tried(_read_shard, data, _check_shard)]
    parts = _unpacked(data)
    if isinstance(parts, list) and all(map(_is_member, parts)):
        tar = shard_of([(name, content) for name, content in parts])
        outcomes.append(_tried(_read_shard, tar, _check_shard))
    return outcomes


def _is_member(part: Any) -> bool:
    if not isinstance(part, list) or len(part) != 2:
        return False
    return isinstance(part[0], str) and 0 < len(part[0]) < 5000 and isinstance(part[1], bytes)


def shard_of(parts: list[tuple[str, bytes]]) -> bytes:
    """Make a tar of these members; the checksums of a trailer at its end are corrected."""
    if parts and parts[-1][0] in TRAILERS:
        names, crc32s = [name for name, _ in parts[:-1]], [zlib.crc32(content) for _, content in parts[:-1]]
        sums = {"members_crc32": crc32s, "names_crc32": names_crc32(names)}
        parts = [*parts[:-1], (parts[-1][0], resealed(parts[-1][1], canonical_json, **sums))]
    body = b"".join(member_header(n, len(c)) + c + bytes(-len(c) % BLOCK) for n, c in parts)
    return body + bytes(2 * BLOCK + -(len(body) + 2 * BLOCK) % ARCHIVE_UNIT)


def _read_shard(data: bytes) -> Shard:
    return read_shard(data, shard="x.tar")


def _check_shard(_: bytes, found: Shard) -> None:
    keys = [sample.key for sample in found.samples]
    assert len(keys) == len(set(keys)) == len(found)
    for at, key in enumerate(keys):
        with contextlib.suppress(SlgWdsError):
            assert found.sample(at).record.key == key


def plan(data: bytes) -> list[Any]:
    """Read a plan; byte strings in it are also tried as the contents of frames."""
    outcomes = [_tried(_decoded_plan, data, _check_plan)]
    fields = _unpacked(data)
    if isinstance(fields, dict):
        framed = _packed({name: _framed(value) for name, value in fields.items()})
        outcomes.append(_tried(_decoded_plan, framed, _check_plan))
    return outcomes


def _decoded_plan(data: bytes) -> Plan:
    with contextlib.suppress(SlgWdsError):
        decode_plan(data, names_later=True)
    return decode_plan(data)


def _check_plan(_: bytes, found: Plan) -> None:
    assert sum(len(found.shard(number)) for number in range(found.num_shards)) == found.num_samples
    assert all(found.keys) and all(found.paths)
    assert decode_plan(encode_plan(found)) == found


def index(data: bytes) -> list[Any]:
    """Read an index part, as it is and with a correct checksum."""
    return [_tried(decode_index, one, _check_index) for one in (data, resealed(data, canonical_json))]


def _check_index(_: bytes, found: ShardIndex) -> None:
    assert decode_index(encode_index(found)) == found
    np.array(found.records, np.int64), np.array(found.images or [], np.int64)  # as readers take them


def manifest(data: bytes) -> list[Any]:
    """Read slg.json with its identity, _info.json and trailers, as they are and with correct checksums."""
    identities = [_tried(_decoded_identity, one) for one in (data, resealed(data, pretty_json))]
    headers = [_tried(_decoded_header, one) for one in (data, resealed(data, canonical_json))]
    return [*identities, *headers, _tried(decode_info, data, _check_info)]


def _decoded_identity(data: bytes) -> Identity:
    return Identity.from_json(decode_description(data).identity)


def _decoded_header(data: bytes) -> ShardHeader:
    return decode_header(data)[0]


def _check_info(_: bytes, found: Info) -> None:
    np.array(found.shard_lengths, np.int64)  # as readers take them


def label_file(data: bytes) -> list[Any]:
    """Read FKD's label file; the bytes are also tried as the pickle in one."""
    return [_tried(read_label_file, one) for one in (data, label_file_of(data))]


def label_file_of(pickled: bytes) -> bytes:
    """Make a file as torch.save does, with this pickle and two storages of 64 bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in (("data.pkl", pickled), ("data/0", bytes(64)), ("data/1", bytes(64))):
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


TARGETS: dict[str, Callable[[bytes], list[Any]]] = {
    "record": record,
    "shard": shard,
    "plan": plan,
    "index": index,
    "manifest": manifest,
    "label_file": label_file,
}


def resealed(data: bytes, encode: Callable[[Any], bytes], **changes: Any) -> bytes:
    """Change fields of a JSON object and correct its checksum; return anything else as it is."""
    with contextlib.suppress(ValueError, RecursionError, SlgWdsError):
        fields = json.loads(data)
        if isinstance(fields, dict):
            fields.pop("crc32", None)
            return encode(seal({**fields, **changes}))
    return data


def _tried(
    decode: Callable[[bytes], Found], data: bytes, check: Callable[[bytes, Found], None] | None = None
) -> Found | SlgWdsError:
    """Decode bytes; return the value, once it is checked, or the error of slg_wds that refused the bytes."""
    try:
        found = decode(data)
    except SlgWdsError as error:
        return error
    if check is not None:
        check(data, found)
    return found


def _unpacked(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data)
    except Exception:  # msgpack raises many kinds
        return None


def _packed(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _framed(value: Any) -> Any:
    """Replace each byte string, alone or in a list, by a zstd frame of it."""
    if isinstance(value, list):
        return [_framed(one) for one in value]
    return compress(value, 1) if isinstance(value, bytes) else value
