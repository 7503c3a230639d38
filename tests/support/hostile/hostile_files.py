"""JSON, tars, FKD label files and images that declare, or decompress to, more than any memory holds."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib

from slg_wds.format.canonical import canonical_json, seal
from slg_wds.format.shards.tar import member_header
from support.hostile.hostile_labels import Hostile
from support.images.encoded import chunk


def header(size: int, kind: bytes = b"0") -> bytes:
    """A tar header with a correct checksum that declares `size` bytes."""
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
    """A pickle that encodes the same long text many times."""
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


FILES: Hostile = {
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
    "label file of many copies": ("label_file", many_copies, "more data than the file holds"),
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
