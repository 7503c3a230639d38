"""Reads that keep the interpreter give the same bytes as all others, and fail as they do."""

from __future__ import annotations

import ctypes
import os

import numpy as np
import pytest

from slg_wds.errors import StoreUnavailableError
from slg_wds.replay.sources import files, page_cache
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.replay.sources.page_cache import Parts

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
RANGES = [(5, 4096), (0, 1), (100, 0), (123_457, 100_000), (299_990, 10), (299_990, 50), (400_000, 7)]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return str(file)


@pytest.mark.parametrize("kept", [True, False])
def test_parts_hold_what_the_file_does(path, monkeypatch, kept):
    """The last ranges reach beyond the end of the file."""
    if not kept:
        monkeypatch.setattr(page_cache, "_PREADV2", None)
    opened, parts = OpenFiles(), Parts([size for _, size in RANGES])
    found = opened.fill(parts, [(path, offset) for offset, _ in RANGES])
    assert [bytes(one) for one in found] == [CONTENT[offset : offset + size] for offset, size in RANGES]
    assert len(parts.memory) == sum(size for _, size in RANGES)
    assert bytes(parts.memory[:4097]) == CONTENT[5:4101] + CONTENT[:1]
    assert bytes(opened.read(path, 299_990, 50)) == CONTENT[-10:]


@pytest.mark.skipif(page_cache._PREADV2 is None, reason="this system has no such read")
def test_what_is_in_memory_is_read_without_another_call(path, monkeypatch):
    parts, descriptor = Parts([1000, 2000]), os.open(path, os.O_RDONLY)
    assert len(os.pread(descriptor, 3000, 0)) == 3000  # now the kernel holds it
    filled = [parts.fill_cached(at, ctypes.c_int(descriptor), 1000 * at) for at in (0, 1)]
    if filled[0] <= 0:
        pytest.skip("this file system has no such read")
    assert filled == [1000, 2000] and bytes(parts.memory) == CONTENT[:3000]
    os.close(descriptor)
    assert parts.fill_cached(0, ctypes.c_int(descriptor), 0) <= 0
    monkeypatch.setattr(files.os, "preadv", None)
    assert bytes(OpenFiles().read(path, 10, 90)) == CONTENT[10:100]


def test_what_the_disk_has_alone_is_waited_for(path):
    descriptor = os.open(path, os.O_RDWR)
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    assert bytes(OpenFiles().read(path, 0, len(CONTENT))) == CONTENT


def test_a_read_that_fails_says_so(path, monkeypatch):
    def failing(*given):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "preadv", failing)
    monkeypatch.setattr(page_cache, "_PREADV2", lambda *given: -1)
    with pytest.raises(StoreUnavailableError, match="Input/output error"):
        OpenFiles().read(path, 0, 10)
