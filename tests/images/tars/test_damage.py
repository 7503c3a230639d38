"""Tars that are cut, damaged or no tars at all: an error each time, and never a lost sample."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import ImageShardError, NotFoundError, SlgWdsError
from slg_wds.images.tars.reader import RangeReader, scan_tar
from slg_wds.images.tars.samples import scan_samples
from support.images.sources import FORMATS, samples, shard_set, shards, tar_bytes


def ranges(data: bytes, window: int = 1 << 13) -> RangeReader:
    return RangeReader(lambda offset, size: data[offset : offset + size], len(data), window)


def scanned(data: bytes) -> list[str]:
    return scan_samples(ranges(data)).paths


@pytest.mark.parametrize("form", FORMATS)
def test_a_tar_cut_anywhere_is_an_error(form: str) -> None:
    data = tar_bytes(samples(0, 4, folder="" if form == "ustar" else "long" * 30 + "/"), FORMATS[form])
    end = len(data.rstrip(b"\0"))
    last = -(-end // 512) * 512 + 1024
    assert len(scanned(data[:last])) == 4
    for cut in {*range(0, last, 64), *range(0, last, 512), last - 1, last - 512}:
        with pytest.raises(ImageShardError, match="truncated"):
            scanned(data[:cut])


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_headers_never_lose_a_sample(form: str) -> None:
    """Each byte of each header in turn: an error, or the same samples."""
    data = tar_bytes(samples(0, 3, folder="" if form == "ustar" else "long" * 30 + "/"), FORMATS[form])
    whole = scan_samples(ranges(data))
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    assert len(headers) == (6 if form == "ustar" else 12)
    refused = 0
    for at in headers:
        for place in range(at, at + 512):
            for mask in (0x01, 0x80, 0xFF):
                bad = data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
                try:
                    found = scan_samples(ranges(bad))
                except ImageShardError as error:
                    refused += 1
                    assert "byte" in str(error)
                else:
                    assert found == whole
                    assert place - at in range(148, 156)  # how the checksum itself is written
    assert refused > len(headers) * 500 * 3


@given(st.data())
@settings(max_examples=150)
def test_damage_anywhere_is_an_error_or_in_the_content(data: st.DataObject) -> None:
    whole = tar_bytes(samples(0, 3))
    expected = scan_samples(ranges(whole))
    size = data.draw(st.integers(1, 600))
    place = data.draw(st.integers(0, len(whole) - size))
    bad = whole[:place] + data.draw(st.binary(min_size=size, max_size=size)) + whole[place + size :]
    try:
        found = scan_samples(ranges(bad, data.draw(st.sampled_from([1, 512, 1 << 20]))))
    except ImageShardError:
        return
    assert (found.paths, found.offsets, found.sizes) == (expected.paths, expected.offsets, expected.sizes)


def test_what_is_no_whole_tar(tmp_path: Path) -> None:
    whole = tar_bytes(samples(0, 2))
    cases = {
        b"": "truncated",
        b"\x1f\x8b" + bytes(2000): "this is not a tar",
        b"<html>" * 500: "this is not a tar",
        whole + whole: r"something follows the end .* `cat`",
        whole[:-1] + b"x": "something follows",
        whole.rstrip(b"\0").ljust(-(-len(whole.rstrip(b"\0")) // 512) * 512, b"\0"): "truncated",
    }
    for data, message in cases.items():
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(ImageShardError, match=message) as caught:
            shards(tmp_path / "x.tar").plan()
        assert str(tmp_path / "x.tar") in str(caught.value)
    with pytest.raises(NotFoundError, match=r"y\.tar"):
        shards(tmp_path / "y.tar").plan()


def test_gnu_base_256_sizes_and_pax_sizes() -> None:
    plain = bytearray(tar_bytes([("1.jpg", b"abc")], tarfile.GNU_FORMAT))
    plain[124:136] = b"\x80" + (3).to_bytes(11, "big")
    plain[148:156] = b"%06o\0 " % (sum(plain[:148]) + 8 * 32 + sum(plain[156:512]))
    assert [(m.name, m.size) for m in scan_tar(ranges(bytes(plain)))] == [("1.jpg", 3)]
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("1.jpg")
        member.size, member.pax_headers = 3, {"size": "3", "comment": "c"}
        tar.addfile(member, io.BytesIO(b"abc"))
    assert [(m.name, m.size) for m in scan_tar(ranges(out.getvalue()))] == [("1.jpg", 3)]


def test_endless_sizes_take_no_memory() -> None:
    for size in (1 << 40, (1 << 62) - 1, (1 << 80)):
        head = bytearray(tar_bytes([("1.jpg", b"abc")], tarfile.GNU_FORMAT))
        head[124:136] = b"\x80" + size.to_bytes(11, "big")
        for kind in (b"0", b"L", b"x"):
            head[156:157] = kind
            head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:512]))
            with pytest.raises(ImageShardError, match="byte"):
                scanned(bytes(head))


def test_a_tar_that_changed_after_planning(tmp_path: Path) -> None:
    root = shard_set(tmp_path, 1)
    source = shards(root)
    plan = source.plan()
    (root / "shard-0000.tar").write_bytes(tar_bytes([("0.txt", b"x" * 700), *samples(0, 5)]))
    with pytest.raises(ImageShardError, match=r"changed after planning .*shard-0000\.tar"):
        source.reader(plan, 0)(2)
    (root / "shard-0000.tar").write_bytes(b"short")
    with pytest.raises(SlgWdsError, match=r"shard-0000\.tar"):
        source.reader(plan, 0)(2)
    other = shards(shard_set(tmp_path / "other", 1, prefix="other"))
    with pytest.raises(ImageShardError, match=r"shard-0000\.tar of the plan is not here"):
        other.reader(plan, 0)
