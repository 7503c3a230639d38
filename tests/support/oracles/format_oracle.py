"""A reader of shards in some forty lines, written from FORMAT.md alone: it imports nothing of slg_wds."""

import io
import json
import tarfile
import zlib

import msgpack
import numpy as np
import zstandard

from support.oracles.low_rank_oracle import low_rank


def column(planes, shape):
    number = np.zeros(shape, np.uint32)
    for i, plane in enumerate(planes):
        number |= np.frombuffer(zstandard.decompress(plane), np.uint8).reshape(shape).astype(np.uint32) << (
            8 * i
        )
    return number


def values(record, shape):
    if record["coding"] == "none":
        return np.ones(shape, np.float32)
    number = column(record["columns"]["values"], shape)
    if not record["full"]:
        number = np.cumsum(number, axis=1, dtype=np.uint32)
    if record["coding"] == "log8":
        q = number.astype(np.uint8)
        return np.where(q == 255, 0, 2.0 ** (-q.astype(np.float64) / 16)).astype(np.float32)
    bits, dtype = {"float32": ("<u4", "<f4"), "float16": ("<u2", "<f2")}[record["coding"]]
    return number.astype(bits).view(dtype).astype(np.float32)


def mixing(counts, columns, M):
    P, X, U = counts
    found = {"partner": np.full(M, -1), "crop": np.zeros(M, int)}
    found |= {"lam": np.zeros(M, int), "box": np.zeros((M, 4), int)}
    if X:
        partners, place = np.cumsum(column(columns["mix_partners"], (P,))), column(columns["mixed"], (M,))
        at = np.flatnonzero(place)
        found["partner"][at] = partners[place[at].astype(int) - 1]
        found["crop"][at] = (column(columns["mix_crops"], (X,)) + at) % 65536
        found["lam"][at] = column(columns["mix_lambdas"], (X,))
        pasted = at[found["lam"][at] == 0]
        found["box"][pasted] = column(columns["mix_boxes"], (4, X - U)).T if X > U else 0
    return found


def low_rank_embedding(columns, i, stated, D):
    """The numbers [M, D] of a low-rank embedding."""
    crops, ranks = stated[2:]

    def numbers(name, counts, signed=True):
        found = column(columns[f"{name}_{i}"], (sum(counts),)).astype(np.int64)
        found = found >> 1 ^ -(found & 1) if signed else found
        return np.split(found, np.cumsum(counts)[:-1])

    lengths = numbers("lengths", crops, False) if crops else []
    scales = numbers("scales", [1 + r for r in ranks], False) if crops else []
    mean, basis = (
        numbers(name, counts)
        for name, counts in (("mean", [D] * len(crops)), ("basis", [D * r for r in ranks]))
    )
    coefficients = numbers("coefficients", [m * r for m, r in zip(crops, ranks, strict=True)])
    out = np.zeros((0, D))
    for b, (m, r) in enumerate(zip(crops, ranks, strict=True)):
        w = np.tile(mean[b] * 2.0 ** (-scales[b][0] / 2), (m, 1))
        for j in range(r):
            row = basis[b].reshape(D, r)[:, j] * 2.0 ** (-scales[b][1 + j] / 2)
            w += np.outer(coefficients[b].reshape(m, r)[:, j], row)
        norm = np.linalg.norm(w, axis=1)
        length = np.where((lengths[b] > 0) & (norm > 0), 2.0 ** ((lengths[b] - 10240) / 64), 0)
        out = np.concatenate([out, w * (length / np.where(norm > 0, norm, 1))[:, None]])
    return np.clip(out, -3.4028234663852886e38, 3.4028234663852886e38).astype(np.float32)


def read_record(data):
    record = msgpack.unpackb(data)
    assert record["version"] == 1
    M, k, P, m = (record[name] for name in ("num_crops", "k", "num_palette", "num_tail"))
    columns = record.pop("columns")
    record["boxes"] = column(columns["boxes"], (4, M)).T
    flips = column(columns["flips"], ((M + 7) // 8,)).astype(np.uint8)
    record["flips"] = np.unpackbits(flips, bitorder="little")[:M].astype(bool)
    for i, (name, D, values_of) in enumerate(record.get("embeddings", [])):
        if values_of == "lowrank":
            record["embeddings"][i] = (name, low_rank_embedding(columns, i, record["lowrank"][i], D))
            continue
        bits, dtype = {"float32": ("<u4", "<f4"), "float16": ("<u2", "<f2"), "int8": ("u1", "i1")}[values_of]
        frames, size = iter(columns[f"embedding_{i}"]), np.dtype(bits).itemsize
        pieces = [column([next(frames) for _ in range(size)], (min(16, M - m), D)) for m in range(0, M, 16)]
        numbers = np.concatenate([np.zeros((0, D), int), *pieces]).astype(bits).view(dtype).astype(np.float32)
        if values_of == "int8":
            numbers *= column(columns[f"scales_{i}"], (M, 1)).view("<f4")
        record["embeddings"][i] = (name, numbers)
    if record["coding"] == "embedding":
        return record
    if record["coding"] == "lowrank":
        block_of = column(columns["block_of"], (M,))
        record["probabilities"] = low_rank(columns["low_rank"], block_of, record["num_classes"])
        return record
    if not record["full"]:
        record["index"] = np.cumsum(column(columns["palette"], (P,)))[column(columns["codes"], (M, k))]
    record["values"] = values({**record, "columns": columns}, (M, k))
    if "views" in record:
        S, A, E = record["views"][:3]
        codes = column(columns["operations"], (S, M)) if S else np.zeros((0, M), int)
        arguments, erased = np.zeros((S, M), int), np.zeros((M, 4), int)
        if S:
            numbers = iter(np.cumsum(column(columns["arguments"], (A,))) % 256)
            for code in range(1, 256):
                for at in np.argwhere(codes == code):
                    arguments[tuple(at)] = next(numbers)
        if E:
            bits = column(columns["erased"], ((M + 7) // 8,)).astype(np.uint8)
            there = np.unpackbits(bits, bitorder="little")[:M].astype(bool)
            erased[there] = column(columns["erased_boxes"], (4, E)).T
        record |= {"operations": codes.T, "arguments": arguments.T, "erased": erased}
    if "mixing" in record:
        record |= mixing(record["mixing"], columns, M)
    if m:
        q = column(columns["tail_codes"], (m,))
        record["tail_classes"] = np.cumsum(column(columns["tail_classes"], (m,)))
        v = np.where(q == 255, 0, record["tail_scale"] * 2.0 ** (-q.astype(np.float64) / 16))
        record["tail_probs"] = v.astype(np.float32)
    return record


def read_shard(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    name, content = members.pop()
    header = json.loads(content)
    assert name in ("__slg__/shard", "__slg__/shard.json")
    assert header["members_crc32"] == [zlib.crc32(content) for _, content in members]
    return header, [(n, read_record(c) if n.endswith(".slg.msgpack") else c) for n, c in members]
