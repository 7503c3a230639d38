"""An output file that the user named: written completely or not at all, through links and devices too."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from slg_wds.errors import StoreError
from slg_wds.files import reason_of
from slg_wds.store.base import TEMPORARY_AGE

_NOT_ON_DISK = ("/dev/", "/proc/")  # links such as /dev/stdout lead to this process's own files there


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write, which takes the name `path` if the block ends without an error.

    Until then it is a temporary file in the same folder, so that no reader sees a part of it. A link is followed and
    stays. A device or pipe, and a file in a folder without write permission, is written in place.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        place = Path(os.path.realpath(path))
        with _in_place(path) if _must_stay(path, place) else _aside(place) as file:
            yield file
    except OSError as error:
        raise StoreError(f"it cannot be written: {reason_of(error)}", url=str(path)) from None


def _must_stay(path: Path, place: Path) -> bool:
    if not path.exists():
        return False
    if not stat.S_ISREG(path.stat().st_mode) or str(path).startswith(_NOT_ON_DISK):
        return True
    return str(place).startswith(_NOT_ON_DISK) or not _is_writable(place.parent)


def _is_writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


@contextlib.contextmanager
def _in_place(path: Path) -> Iterator[BinaryIO]:
    with open(path, "wb") as file:
        yield file


@contextlib.contextmanager
def _aside(place: Path) -> Iterator[BinaryIO]:
    """Yield a file beside `place` with a random name. It is renamed once it is on the disk."""
    stem = os.fsdecode(os.fsencode(place.name)[:100])
    _remove_old(place.parent, stem)
    temporary = place.parent / f".{stem}.{secrets.token_hex(8)}"
    file = open(temporary, "xb")  # noqa: SIM115 (closed before it is renamed)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if place.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(place.stat().st_mode))
        temporary.replace(place)
        _sync(place.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_old(folder: Path, stem: str) -> None:
    """Remove the temporary files of killed writers that are older than TEMPORARY_AGE."""
    name = re.compile(rf"\.{re.escape(stem)}\.[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if name.fullmatch(entry.name) and time.time() - entry.lstat().st_mtime > TEMPORARY_AGE:
                entry.unlink()


def _sync(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot sync folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
