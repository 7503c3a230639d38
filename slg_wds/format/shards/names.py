"""Path of an image -> key -> names of the members of its sample."""

from __future__ import annotations

import posixpath
import re

from slg_wds.errors import ImageSourceError, ShardError

RECORD_EXT = "slg.msgpack"
TARGET_EXT = "cls"
IMAGE_EXTS = ("bmp", "gif", "jpg", "pgm", "png", "ppm", "tif", "webp")
TRAILER = "__slg__/shard"  # without a dot, so that no reader takes it for a sample
OLD_TRAILER = "__slg__/shard.json"  # in sets whose slg.json does not require "trailer"
TRAILERS = (TRAILER, OLD_TRAILER)
MAX_KEY_BYTES = 4096

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# WebDataset skips members in a top folder of such a name.
_META = re.compile(r"__[^/]*__/")


def key_of(path: str, keep_extension: bool = False) -> str:
    """Return the key of an image, as FORMAT.md, "Keys", defines it.

    Args:
        path: the image's path below its source, with `/` on every system.
        keep_extension: keep the extension in the key.

    Raises:
        ImageSourceError: the path has no key: it is empty, absolute, not UTF-8 or over 4096 bytes, has a NUL, or a
            part that is empty, "." or ".."; or the key is over 4096 bytes.
    """
    _check_path(path)
    folder, slash, base = path.rpartition("/")
    if not keep_extension:
        base = posixpath.splitext(base)[0]
    key = folder.replace("%", "%25") + slash + base.replace("%", "%25").replace(".", "%2E")
    key = _CONTROL.sub(lambda found: f"%{ord(found[0]):02X}", key)
    if _META.match(key):
        key = "%5F" + key[1:]
    if len(key.encode("utf-8")) > MAX_KEY_BYTES:
        raise ImageSourceError(f"the key of {path[:64]!r}... is over {MAX_KEY_BYTES} bytes", hint="rename it")
    return key


def _check_path(path: str) -> None:
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        raise ImageSourceError(f"the path {path!r} is not UTF-8", hint="rename it") from None
    if size > MAX_KEY_BYTES:
        raise ImageSourceError(f"the path {path[:64]!r}... is over {MAX_KEY_BYTES} bytes", hint="rename it")
    if not is_below(path):
        raise ImageSourceError(f"{path!r} is not the path of an image below its source", hint="rename it")


def is_below(path: str) -> bool:
    """Return whether a path stays below what it is relative to: no NUL, and no part empty, "." or ".."."""
    return "\0" not in path and not any(part in ("", ".", "..") for part in path.split("/"))


def check_key(key: str) -> None:
    """Check that a key could come from `key_of`, so that a shard may hold it. Raises ShardError."""
    odd = "." in key.rpartition("/")[2] or _CONTROL.search(key) or _META.match(key)
    if odd or not is_below(key):
        raise ShardError("no path gives this key: see Keys in FORMAT.md", key=key)


def split_member(name: str) -> tuple[str, str]:
    """Split a member's name into key and extension, which begins after the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or not extension:
        raise ShardError(f"the member {name!r} has no key or no extension")
    return folder + slash + stem, extension
