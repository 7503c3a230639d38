"""Files made to take memory or time: each is refused, or read, below 1 GB.

They go through their readers in a process of their own, whose peak so far is looked at after each.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zstandard

from slg_wds.format.canonical import canonical_json, seal
from slg_wds.format.tar import member_header

MOST_MB = 1024
PROBE = """
import json, sys, warnings
import numpy as np
from pathlib import Path
from slg_wds.errors import SlgWdsError
from slg_wds.fkd import read_label_file
from slg_wds.format.identity import check_identity
from slg_wds.format.index import decode_index
from slg_wds.format.manifest import decode_description, decode_info
from slg_wds.format.planbytes import decode_plan
from slg_wds.format.record import decode_outside, decode_record, unpack_record
from slg_wds.format.rows import decode_rows
from slg_wds.format.shard import read_shard
from slg_wds.images.header import image_extension, image_size
from slg_wds.images.samples import scan_samples
from slg_wds.images.tars import Ranges
from slg_wds.report.verify_records import all_sound

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

def record(data):
    decode_record(data)
    all_sound([unpack_record(data)], 1.0)
    decode_rows([data] * 12, np.zeros((12, 2), np.int64))
    decode_outside(data)

def tar(data):
    scan_samples(Ranges(lambda at, size: data[at : at + size], len(data), 1 << 13))

def image(data):
    from slg_wds.images import decode
    decode(data)

READERS = {"record": record, "plan": decode_plan, "index": decode_index, "shard": read_shard, "tar": tar,
    "slg.json": decode_description, "_info.json": decode_info, "label_file": read_label_file, "image": image}
import slg_wds.images.pixels, torch, torchvision.io, PIL.Image
start = peak()
for reader, path in json.loads(sys.argv[1]):
    data = Path(path).read_bytes()
    try:
        READERS[reader](data)
        said = None
    except SlgWdsError as error:
        said = str(error)
    print(json.dumps([Path(path).name, peak() - start, said]), flush=True)
"""


def frame(size: int, byte: bytes = b"\0") -> bytes:
    """One zstd frame of so many equal bytes."""
    compressor = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True)
    stream = compressor.compressobj(size)
    piece = byte * (1 << 20)
    parts = [stream.compress(piece[: min(len(piece), size - at)]) for at in range(0, size, len(piece))]
    return b"".join([*parts, stream.flush()])


def record(**new: object) -> bytes:
    fields = {
        "version": 1, "key": "a", "path": "a.jpg", "target": None, "height": 1, "width": 1, "num_crops": 1, "k": 1,
        "num_classes": 1 << 24, "coding": "float32", "full": False, "num_palette": 1, "num_tail": 0,
        "tail_scale": 0.0, "tail_rest": 0.0, **new,
    }  # fmt: skip
    return msgpack.packb(fields, use_single_float=True)


def columns(M: int, width: int, **more: object) -> dict[str, object]:
    """Whole columns of M crops: boxes of one pixel, values of 0."""
    ones = bytes(2 * M) + b"\1" * (2 * M)
    boxes = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(ones)
    values = [frame(M * width)] * 4
    return {"columns": {"boxes": [boxes], "flips": [], "values": values, **more}}


def full_record() -> bytes:
    M, C = 32, 1 << 20
    new = {"num_crops": M, "k": C, "num_classes": C, "full": True, "num_palette": 0}
    return record(**new, **columns(M, C))


def many_crops() -> bytes:
    """2^20 crops of the same 16 classes, the most that there can be."""
    M, k = 1 << 20, 16
    codes = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
        bytes(range(k)) * M
    )
    palette = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
        b"\0" + b"\1" * (k - 1)
    )
    new = {"num_crops": M, "k": k, "num_palette": k}
    return record(**new, **columns(M, k, palette=[palette], codes=[codes, *[frame(k * M)] * 3]))


def many_classes() -> bytes:
    """A palette and a tail of as many classes as there can be."""
    M, P, m = 1 << 10, 1 << 20, 1 << 18
    steps, tail = frame(P, b"\1"), frame(m, b"\1")
    codes = zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
        np.arange(P, dtype="<u4").view(np.uint8).reshape(-1, 4)[:, 0].tobytes()
    )
    planes = [
        zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
            np.ascontiguousarray(np.arange(P, dtype="<u4").view(np.uint8).reshape(-1, 4)[:, at]).tobytes()
        )
        for at in range(3)
    ]
    assert codes == planes[0]
    more = {"palette": [steps], "codes": planes, "tail_classes": [tail], "tail_codes": [frame(m)]}
    new = {"num_crops": M, "k": P // M, "num_palette": P, "num_tail": m, "tail_scale": 1.0}
    return record(**new, **columns(M, P // M, **more))


def outside() -> bytes:
    return record(**columns(1, 1, palette=[], codes=[], outside=[frame(1 << 25)] * 4))


def plan(**new: object) -> bytes:
    empty = frame(0)
    fields = {
        "version": 1, "source": "folder", "num_shards": 0, "num_samples": 0, "shard_names": [empty, empty],
        "shard_sizes": empty, "paths": [empty, empty], "key_begins_path": empty, "key_lengths": empty,
        "other_keys": empty, "targets": empty, **new,
    }  # fmt: skip
    return msgpack.packb(fields)


def vector(value: int, count: int) -> bytes:
    return zstandard.ZstdCompressor(3, write_checksum=True, write_content_size=True).compress(
        b"".join(bytes([value >> 8 * at & 255]) * count for at in range(4))
    )


def large_plan(text: Callable[[int], bytes]) -> bytes:
    """As many images as a small plan may have, with long paths that are keys too."""
    N, length = 1 << 20, 127
    return plan(
        num_samples=N, num_shards=1, shard_names=[vector(1, 1), text(1)], shard_sizes=vector(N, 1),
        paths=[vector(length, N), text(N * length)], key_begins_path=frame(N // 8, b"\xff"),
        key_lengths=vector(length, N), targets=vector(0, N),
    )  # fmt: skip


def one_long_path() -> bytes:
    size = 120 << 20
    return plan(
        num_samples=1, num_shards=1, shard_names=[vector(1, 1), frame(1, b"a")], shard_sizes=vector(1, 1),
        paths=[vector(size, 1), frame(size, b"/")], key_begins_path=frame(1, b"\1"), key_lengths=vector(size, 1),
        targets=vector(0, 1),
    )  # fmt: skip


def header(size: int, kind: bytes = b"0") -> bytes:
    """A tar header that states so many bytes, its checksum right."""
    block = bytearray(member_header("a.slg.msgpack" if kind == b"0" else "././@PaxHeader", 0)[-512:])
    block[124:136], block[156:157], block[148:156] = b"%011o\0" % size, kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def label_file(pickled: bytes, method: int = zipfile.ZIP_STORED, **parts: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in {"data.pkl": pickled, **parts}.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def many_copies() -> bytes:
    """A pickle that encodes one long text again and again."""
    text = b"a" * (30 << 20)
    once = b"c_codecs\nencode\nh\0X\6\0\0\0latin1\x86R0"
    return label_file(
        b"\x80\2X"
        + len(text).to_bytes(4, "little")
        + text
        + b"q\0"
        + b"c_codecs\nencode\nh\0X\6\0\0\0latin1\x86R" * 700
        + once
        + b"."
    )


def many_parts() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(200_000):
            archive.writestr(str(number), b"")
    return stream.getvalue()


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def bmp(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        + bytes(64)
    )


HOSTILE: dict[str, tuple[str, Callable[[], bytes], str | None]] = {
    "frame of 1 GiB for one number": (
        "record",
        lambda: record(
            columns={"boxes": [frame(1 << 30)], "flips": [], "palette": [], "codes": [], "values": []}
        ),
        "declares",
    ),
    "full record": ("record", full_record, None),
    "full record of too many classes": (
        "record",
        lambda: record(k=1 << 24, num_classes=1 << 24, full=True, num_palette=0, columns={}),
        "over the limit",
    ),
    "many crops": ("record", many_crops, None),
    "many classes": ("record", many_classes, None),
    "crops times k": ("record", lambda: record(num_crops=1 << 20, k=1 << 23, columns={}), "over the limit"),
    "outside": ("record", outside, None),
    "array of 2^32": ("record", lambda: b"\xdd\xff\xff\xff\xff", "not msgpack"),
    "map of 2^32": ("record", lambda: b"\xdf\xff\xff\xff\xff", "not msgpack"),
    "bytes of 2^32": ("record", lambda: b"\x81\xa1a\xc6\xff\xff\xff\xff", "not msgpack"),
    "a million arrays": (
        "record",
        lambda: b"\xdc\0\x40" + (b"\xdc\0\x40" + b"\x90" * 64) * 64,
        "not msgpack",
    ),
    "arrays in arrays": ("record", lambda: b"\x91" * (1 << 20) + b"\x90", "not msgpack"),
    "plan of long paths": ("plan", lambda: large_plan(lambda size: frame(size, b"a")), None),
    "plan of 2^34 bytes": (
        "plan",
        lambda: plan(num_samples=1, paths=[vector((1 << 32) - 1, 1), frame(1 << 28)]),
        "more than there can be|declares|over",
    ),
    "plan of 2^28 images": ("plan", lambda: plan(num_samples=1 << 28), "more than there can be"),
    "plan of 2^24 shards": ("plan", lambda: plan(num_shards=1 << 24), "more than there can be"),
    "plan of one long path": ("plan", one_long_path, "over 4096 bytes"),
    "plan of arrays": (
        "plan",
        lambda: b"\x81\xa1a" + b"\xdc\0\x40" + (b"\xdc\0\x40" + b"\x90" * 64) * 64,
        "not msgpack",
    ),
    "JSON of lists": ("index", lambda: b'{"a":[' + b"[]," * (5 << 20) + b"[]]}", "CRC-32"),
    "JSON of too many lists": ("index", lambda: b'{"a":[' + b"[]," * (6 << 20) + b"[]]}", "over the limit"),
    "JSON in JSON": ("slg.json", lambda: b'{"a":' * (1 << 20), "not JSON"),
    "JSON 900 deep": ("slg.json", lambda: b'{"a":' * 900 + b"1" + b"}" * 900, "deep"),
    "JSON of a long number": (
        "_info.json",
        lambda: (
            b'{"splits":{"a":{"shard_lengths":['
            + b"9" * 4000
            + b'],"name":"a","filenames":["a"],"num_samples":'
            + b"9" * 4000
            + b"}}}"
        ),
        "shard_lengths",
    ),
    "index of far places": (
        "index",
        lambda: canonical_json(
            seal(
                {
                    "version": 1,
                    "name": "a",
                    "shard": 0,
                    "set_digest": "",
                    "bytes": 1 << 40,
                    "sha256": "",
                    "records": [],
                    "images": None,
                    "image_shard": None,
                    "left_out": [],
                }
            )
        ),
        "over",
    ),
    "member of 8 GiB": ("shard", lambda: header((1 << 33) - 1) + bytes(10240), "truncated|ends at|damaged"),
    "PAX header of 8 GiB": ("shard", lambda: header((1 << 33) - 1, b"x") + bytes(10240), "PAX header"),
    "image member of 8 GiB": ("tar", lambda: header((1 << 33) - 1) + bytes(10240), "truncated"),
    "image PAX header of 8 GiB": ("tar", lambda: header((1 << 33) - 1, b"x") + bytes(10240), "PAX header"),
    "label file, compressed": (
        "label_file",
        lambda: label_file(bytes(100 << 20), zipfile.ZIP_DEFLATED),
        "compressed",
    ),
    "label file of 200 MB": (
        "label_file",
        lambda: label_file(bytes(200 << 20), zipfile.ZIP_DEFLATED),
        "over the limit",
    ),
    "label file of many parts": ("label_file", many_parts, "parts"),
    "label file of many copies": ("label_file", many_copies, "more than the file holds"),
    "label file, bytearray": (
        "label_file",
        lambda: label_file(
            pickle.dumps(bytearray(1 << 20), 5).replace(
                (1 << 20).to_bytes(8, "little"), (1 << 40).to_bytes(8, "little")
            )
        ),
        "cannot be read safely",
    ),
    "PNG of 60000 x 60000": ("image", lambda: png(60000, 60000), "pixels are more than the limit"),
    "PNG of 2^31 x 2^31": ("image", lambda: png(2**31 - 1, 2**31 - 1), "pixels are more than the limit"),
    "BMP of 60000 x 60000": ("image", lambda: bmp(60000, 60000), "limit|exceeds"),
    "JPEG of 65500 x 65500": (
        "image",
        lambda: b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\3" + bytes(64),
        "pixels are more than the limit",
    ),
    "WebP of 16383 x 16383": (
        "image",
        lambda: b"RIFF\x40\0\0\0WEBPVP8 \x20\0\0\0\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(64),
        "pixels are more than the limit",
    ),
}


@pytest.fixture(scope="module")
def probed(tmp_path_factory) -> dict[str, tuple[float, str | None]]:
    """For each hostile file the peak of memory above the start in MB, and what its reader said, None for nothing."""
    folder = tmp_path_factory.mktemp("hostile")
    cases = []
    for name, (reader, make, _) in HOSTILE.items():
        (folder / name).write_bytes(make())
        cases.append((reader, str(folder / name)))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(cases)], capture_output=True, text=True, timeout=500
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: (grown, said) for name, grown, said in found}


@pytest.mark.parametrize("name", HOSTILE)
def test_memory_is_bounded_and_the_file_is_refused(probed, name):
    grown, said = probed[name]
    assert grown < MOST_MB
    wanted = HOSTILE[name][2]
    if wanted is None:
        assert said is None
    else:
        assert said is not None and re.search(wanted, said), said


def test_the_files_are_small():
    """What takes much memory must not be large itself."""
    for name in ("full record", "many crops", "many classes", "plan of long paths", "plan of one long path"):
        assert len(HOSTILE[name][1]()) < 400_000, name


def test_nothing_is_probed_that_is_not_there(tmp_path: Path):
    """The probe itself tells of memory that is taken."""
    code = PROBE.replace("def image(data):", "def image(data):\n    bytearray(1 << 28)\n")
    path = tmp_path / "x"
    path.write_bytes(bmp(1, 1))
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([["image", str(path)]])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)[1] > 200
