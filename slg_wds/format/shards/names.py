"""Image path -> key -> names of a shard's members."""

from __future__ import annotations

import posixpath
import re

from slg_wds.errors import ImageSourceError, ShardError

RECORD_EXT = "slg.msgpack"
TARGET_EXT = "cls"
IMAGE_EXTS = ("bmp", "gif", "jpg", "pgm", "png", "ppm", "tif", "webp")
TRAILER = "__slg__/shard"  # no dot: readers of WebDataset take it for no sample
OLD_TRAILER = "__slg__/shard.json"  # of sets that do not require TRAILER_FEATURE
TRAILERS = (TRAILER, OLD_TRAILER)
MAX_KEY_BYTES = 4096

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# WebDataset skips members whose name begins with such a folder.
_META = re.compile(r"__[^/]*__/")


def key_of(path: str, keep_extension: bool = False) -> str:
    """The key of an image's path below its source, as "Keys" of FORMAT.md says; `/` parts it on every system.

    Raises ImageSourceError for a path that has none: empty, absolute, with a part that is empty, "." or "..",
    with NUL, not UTF-8, or over 4096 bytes (or its key is).
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
    """Whether a path stays below what it is relative to: parted by `/`, no part empty, "." or "..", no NUL."""
    return "\0" not in path and not any(part in ("", ".", "..") for part in path.split("/"))


def check_key(key: str) -> None:
    """That a key can stand in a shard, as those of `key_of` can. Raises ShardError."""
    odd = "." in key.rpartition("/")[2] or _CONTROL.search(key) or _META.match(key)
    if odd or not is_below(key):
        raise ShardError("the key is not one that a path gives: see Keys of FORMAT.md", key=key)


def split_member(name: str) -> tuple[str, str]:
    """(key, extension) of a member's name; the extension begins after the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or not extension:
        raise ShardError(f"the member {name!r} has no key or no extension")
    return folder + slash + stem, extension
