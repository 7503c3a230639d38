"""Image path -> key -> names of a shard's members."""

from __future__ import annotations

import posixpath
import re

from slg_wds.errors import ImageSourceError, ShardError

RECORD_EXT = "slg.msgpack"
TARGET_EXT = "cls"
IMAGE_EXTS = ("bmp", "gif", "jpg", "pgm", "png", "ppm", "tif", "webp")
SHARD_JSON = "__slg__/shard.json"
MAX_KEY_BYTES = 4096

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# WebDataset drops members whose name begins with such a directory.
_META = re.compile(r"__[^/]*__/")


def key_of(path: str, keep_extension: bool = False) -> str:
    """The key of an image's path below its source: see "Keys" of FORMAT.md.

    Raises ImageSourceError for a path that has no key: empty, absolute, with a component that is empty, "." or
    "..", with NUL, not UTF-8, or over 4096 bytes.
    """
    _check_path(path)
    folder, base = posixpath.split(path)
    if not keep_extension:
        base = posixpath.splitext(base)[0]
    escaped = base.replace("%", "%25").replace(".", "%2E")
    key = posixpath.join(folder.replace("%", "%25"), escaped)
    key = _CONTROL.sub(lambda match: f"%{ord(match[0]):02X}", key)
    if _META.match(key):
        key = "%5F" + key[1:]
    if len(key.encode("utf-8")) > MAX_KEY_BYTES:
        raise ImageSourceError(f"the image's key is over {MAX_KEY_BYTES} bytes", key=key[:64])
    return key


def _check_path(path: str) -> None:
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        raise ImageSourceError(f"the path {path!r} is not UTF-8", hint="rename the image") from None
    if size > MAX_KEY_BYTES:
        raise ImageSourceError(f"the path {path[:64]!r}... is over {MAX_KEY_BYTES} bytes")
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ImageSourceError(f"{path!r} is not a relative path of an image", hint="rename the image")


def split_member(name: str) -> tuple[str, str]:
    """(key, extension) of a member's name; the extension begins at the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot:
        raise ShardError(f"the member {name!r} has no key or no extension")
    return folder + slash + stem, extension
