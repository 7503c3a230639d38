"""Image files, also those that Pillow cannot write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    """Return the file that Pillow writes."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(kind: int, depth: int, rows: list[bytes], width: int, before: bytes = b"") -> bytes:
    """A PNG that Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png16(kind: int, image: Image.Image) -> bytes:
    """A PNG of 16 bits a channel, whose lower bytes are noise."""
    levels = np.asarray(image).astype(np.int64) * 257
    noise = np.random.default_rng(0).integers(-120, 120, levels.shape)
    rows = np.clip(levels + noise, 0, 65535).astype(">u2")
    return png(kind, 16, [row.tobytes() for row in rows], image.width)


def hwc(image: torch.Tensor) -> NDArray[np.uint8]:
    """Turn pixels [3, H, W] into Pillow's order, [H, W, 3]."""
    return image.permute(1, 2, 0).numpy()
