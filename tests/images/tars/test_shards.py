"""Shards of images: webdataset is the oracle for keys and targets, tarfile and TarWriter write the tars."""

from __future__ import annotations

import functools
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import (
    DuplicateKeyError,
    ImageShardError,
    ImageSourceError,
    NoImagesError,
    NoTargetsError,
    NotFoundError,
    SlgWdsError,
    UsageError,
)
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from slg_wds.images import open_source
from slg_wds.images.tars.reader import RangeReader, scan_tar
from slg_wds.images.tars.samples import scan_samples
from slg_wds.store import open_store
from support.image_sources import FORMATS, Files, images, samples, shard_set, shards, tar_bytes
from support.servers.s3 import S3Server


def ranges(data: bytes, window: int = 1 << 13) -> RangeReader:
    return RangeReader(lambda offset, size: data[offset : offset + size], len(data), window)


def by_webdataset(path: Path) -> list[dict[str, Any]]:
    with open(path, "rb") as file:
        files = wds.tariterators.tar_file_expander([{"url": str(path), "stream": file}])
        return list(wds.tariterators.group_by_keys(files))


@pytest.mark.parametrize("form", [*FORMATS, "writer"])
def test_keys_targets_and_images_are_webdatasets(tmp_path: Path, form: str) -> None:
    names = ["a/0001", "a/0002", "b/0001", "plain"]
    names += ["n/" + "x" * 90, "é/ü"] + ([] if form == "ustar" else ["long/" + "y" * 200])
    path = tmp_path / "part-7.tar"
    rows = [(name, i, f"image {name}".encode() * 50) for i, name in enumerate(names)]
    if form == "writer":
        with wds.TarWriter(str(path)) as sink:
            for name, target, image in rows:
                sink.write({"__key__": name, "JPEG": image, "cls": target, "txt": "a caption"})
    else:
        files: Files = []
        for name, target, image in rows:
            files += [
                (f"{name}.JPEG", image),
                (f"{name}.cls", b"%d\n" % target),
                (f"{name}.txt", b"a caption"),
            ]
        path.write_bytes(tar_bytes(files, FORMATS[form]))
    source = shards(path)
    plan = source.plan()
    oracle = by_webdataset(path)
    assert plan.keys[:] == [sample["__key__"] for sample in oracle] == names
    assert plan.targets.tolist() == [int(sample["cls"]) for sample in oracle]
    assert images(source, plan) == [sample["jpeg"] for sample in oracle]
    assert plan.paths[:] == [f"{name}.JPEG" for name in names]
    assert (plan.shard_names, plan.image_shards, plan.source) == (["part-7"], ["part-7.tar"], "shards")
    assert decode_plan(encode_plan(plan)) == plan


def test_order_and_names_of_shards_are_kept(tmp_path: Path) -> None:
    root = shard_set(tmp_path / "d")
    plan = shards(root).plan(7, 2)
    assert plan.shard_names == ["shard-0000", "shard-0001", "shard-0002"]
    assert plan.shard_sizes.tolist() == [5, 5, 5]
    assert plan.paths[:] == [f"{n:05d}.jpg" for n in range(15)]
    assert plan == shards(f"{root}/shard-{{0000..0002}}.tar").plan(8, 9)
    assert shards(f"{root}/shard-{{0002,0000}}.tar").plan().shard_names == ["shard-0002", "shard-0000"]
    assert shards(root / "shard-0001.tar").plan().paths[0] == "00005.jpg"


def test_targets_of_json_and_their_mapping(tmp_path: Path) -> None:
    documents = [
        '{"label": 3, "x": 9}',
        '{"class_id": 4}',
        '{"caption": "no class"}',
        '{"target": -1, "x": 2}',
    ]
    files: Files = []
    for n, text in enumerate(documents):
        files += [(f"{n}.png", b"i"), (f"{n}.json", text.encode())]
    (tmp_path / "a.tar").write_bytes(tar_bytes(files))
    source = shards(tmp_path / "a.tar")
    assert source.plan().targets.tolist() == [3, 4, -1, -1]
    assert source.plan(target_of={3: 30, 4: None}.get).targets.tolist() == [30, -1, -1, -1]
    with pytest.raises(NoTargetsError, match=r"the sample of 2\.png has no target"):
        shards(tmp_path / "a.tar", need_targets=True).plan()
    with pytest.raises(ImageShardError, match=r"'1\.json'"):
        shards(tmp_path / "a.tar", target_field="x").plan()


def test_the_image_is_the_first_of_the_known_extensions(tmp_path: Path) -> None:
    files = [
        ("1.txt", b""),
        ("1.webp", b"w"),
        ("1.png", b"p"),
        ("1.seg.png", b"s"),
        ("2.PNG", b"q"),
        ("2.npy", b"n"),
    ]
    (tmp_path / "a.tar").write_bytes(tar_bytes(files))
    source = shards(tmp_path / "a.tar")
    plan = source.plan()
    assert plan.paths[:] == ["1.png", "2.PNG"]
    assert images(source, plan) == [b"p", b"q"]


def test_folders_meta_and_hidden_members_are_passed_over(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo("./a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in ("./a/1.jpg", "a/README", "a/.hidden.jpg", "__slg__/shard.json"):
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    source = shards(tmp_path / "a.tar")
    plan = source.plan()
    assert (plan.paths[:], plan.keys[:]) == (["a/1.jpg"], ["a/1"])
    assert source.ignored == {"members without extension": 1, "hidden members": 1}


def test_tars_without_a_sample_are_no_images(tmp_path: Path) -> None:
    """A set of nothing would be complete at once."""
    for name, files in {"empty": [], "bare": [("1", b"an image"), ("._2.jpg", b"")]}.items():
        (tmp_path / f"{name}.tar").write_bytes(tar_bytes(files))
    with pytest.raises(NoImagesError, match=r"it is empty \(url .*empty\.tar"):
        shards(tmp_path / "empty.tar").plan()
    with pytest.raises(NoImagesError, match=r"members without extension \(2\), hidden members \(1\)"):
        (tmp_path / "more.tar").write_bytes(tar_bytes([("3", b"an image")]))
        shards(str(tmp_path / "{empty,bare,more}.tar")).plan()


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        (
            [("1.txt", b"a"), ("2.jpg", b"b")],
            ImageShardError,
            r"sample '1' at byte 512 has no image \(only txt\)",
        ),
        (
            [("a/img1.0.jpg", b"a"), ("a/img1.1.jpg", b"b")],
            ImageShardError,
            r"'a/img1' .*only 0\.jpg, 1\.jpg",
        ),
        (
            [("1.jpg", b"a"), ("2.jpg", b"b"), ("1.cls", b"3"), ("2.cls", b"4")],
            ImageShardError,
            "are adjacent",
        ),
        ([("1.jpg", b"a"), ("1.cls", b"cat")], ImageShardError, r"'1\.cls' at byte \d+ is no class number"),
        ([("1.jpg", b"a"), ("1.cls", b"1_0")], ImageShardError, "no class number"),
        ([("1.jpg", b"a"), ("1.cls", b"")], ImageShardError, "no class number"),
        ([("1.jpg", b"a"), ("1.cls", b"-2")], ImageShardError, r"'1\.cls' at byte \d+ is -2"),
        ([("1.jpg", b"a"), ("1.cls", b"9" * 20)], ImageShardError, "99999"),
        ([("1.jpg", b"a"), ("1.json", b"[")], ImageShardError, "no class number"),
        ([("1.jpg", b"a"), ("1.json", b'{"label": "cat"}')], ImageShardError, "no class number"),
        ([("1.jpg", b"a"), ("1.json", b"[" * 100_000)], ImageShardError, "no class number"),
        ([("1.jpg", b"a"), ("1.JPG", b"b")], DuplicateKeyError, r"'1' has two members \.jpg"),
        ([("1.jpg", b"a"), ("2.jpg", b"b"), ("1.jpg", b"c")], DuplicateKeyError, "twice"),
        ([("1.jpg", b"a"), ("2.jpg", b"b"), ("1.png", b"c")], DuplicateKeyError, r"1\.jpg and 1\.png"),
        ([("../1.jpg", b"a")], ImageSourceError, r"\.\./1\.jpg"),
    ],
)
def test_bad_samples(tmp_path: Path, files: Files, error: type[SlgWdsError], message: str) -> None:
    (tmp_path / "bad.tar").write_bytes(tar_bytes(files))
    with pytest.raises(error, match=message) as caught:
        shards(tmp_path / "bad.tar").plan()
    assert "bad.tar" in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_image_that_is_a_link(tmp_path: Path, kind: bytes) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("1.jpg")
        member.type, member.linkname = kind, "x" * 150
        tar.addfile(member)
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    with pytest.raises(ImageShardError, match="is a link"):
        shards(tmp_path / "a.tar").plan()


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


def test_two_shards_of_one_name(tmp_path: Path) -> None:
    shard_set(tmp_path / "a", 1)
    with pytest.raises(ImageSourceError, match=r"two image shards are named a/shard-0000\.tar"):
        shards(f"{tmp_path}/{{a,a,b}}/shard-0000.tar")


def test_splits_of_shards(tmp_path: Path) -> None:
    root = tmp_path / "in-one"
    shard_set(root, 2, prefix="imagenet-train")
    shard_set(root, 1, prefix="imagenet-validation")
    source = shards(root)
    assert source.plan().shard_names == ["imagenet-train-0000", "imagenet-train-0001"]
    assert source.ignored == {"tars of other splits": 1}
    assert shards(root, split="val").plan().shard_names == ["imagenet-validation-0000"]
    with pytest.raises(NoImagesError, match="no folder test"):
        shards(root, split="test")
    shard_set(tmp_path / "folders/train")
    shard_set(tmp_path / "folders/val", 1)
    assert len(shards(tmp_path / "folders").plan().shard_names) == 3
    assert len(shards(tmp_path / "folders", split="val").plan().shard_names) == 1
    for wrong in ({"list_file": "x"}, {"split": "val"}):
        with pytest.raises(UsageError):
            shards(root / "imagenet-train-0000.tar", **wrong)
    with pytest.raises(UsageError, match="--list"):
        shards(root, list_file="x")


def info(**splits: Any) -> str:
    return json.dumps({"splits": {name: {"filenames": names} for name, names in splits.items()}})


def test_info_names_the_shards(tmp_path: Path) -> None:
    root = shard_set(tmp_path, 3)
    (root / "_info.json").write_text(info(train=["shard-{0000..0001}.tar"], validation="shard-0002.tar"))
    source = shards(root)
    assert source.plan().shard_names == ["shard-0000", "shard-0001"]
    assert source.ignored == {"tars of other splits": 1}
    assert shards(root, split="val").plan().shard_names == ["shard-0002"]
    with pytest.raises(NoImagesError, match=r"no split test .*train, validation"):
        shards(root, split="test")
    (root / "_info.json").write_text(info(odd=["shard-0001.tar"]))
    assert shards(root).plan().shard_names == ["shard-0001"]
    (root / "_info.json").write_text(info(train=["shard-0009.tar"]))
    with pytest.raises(NotFoundError, match=r"shard-0009\.tar"):
        shards(root).plan()
    for text in ("[", "[]", '{"splits": []}', '{"splits": {"train": {}}}', info(train=[1]), info(train=3)):
        (root / "_info.json").write_text(text)
        if text == '{"splits": []}':
            assert len(shards(root).plan().shard_names) == 3
            continue
        with pytest.raises(ImageSourceError, match=r"_info\.json"):
            shards(root)


def test_class_folders_beside_tars_win(tmp_path: Path) -> None:
    shard_set(tmp_path, 1)
    (tmp_path / "index").mkdir()
    (tmp_path / "index/x").touch()
    assert shards(tmp_path).plan().num_samples == 5
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").touch()
    source = open_source(str(tmp_path))
    assert source.kind == "folder"
    assert source.ignored == {".tar": 1, "": 1}


def test_shards_in_a_bucket(s3_url: str, s3_server: S3Server, tmp_path: Path) -> None:
    options = s3_server.options()
    store = open_store(s3_url, options)
    root = shard_set(tmp_path / "local")
    for path in root.iterdir():
        store.create(f"data/train/{path.name}", path.read_bytes())
    local = shards(root)
    for url in (f"{s3_url}/data", f"{s3_url}/data/train", f"{s3_url}/data/train/shard-{{0000..0002}}.tar"):
        source = shards(url, store_options=options)
        plan = source.plan()
        assert plan == local.plan()
        assert images(source, plan) == images(local, plan)
    read = source.reader(plan, 1)
    with ThreadPoolExecutor(8) as pool:  # each image three times: also after the shard was let go
        assert list(pool.map(read, [5, 6, 7, 8, 9] * 3)) == images(local, plan)[5:10] * 3
    with pytest.raises(NotFoundError):
        shards(f"{s3_url}/nowhere/a.tar", store_options=options).plan()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files with ranges, as any real web server gives them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        part, status = data, 200
        if header := self.headers.get("Range"):
            first, last = header.removeprefix("bytes=").split("-")
            part, status = data[int(first) : int(last) + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.send_header("ETag", '"x"')
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_shards_on_a_web_server(web: str, tmp_path: Path) -> None:
    root = shard_set(tmp_path / "d")
    local = shards(root)
    with pytest.raises(NoImagesError, match="cannot be listed"):
        shards(f"{web}/d")
    (root / "_info.json").write_text(info(train=["shard-{0000..0002}.tar"]))
    for url in (f"{web}/d", f"{web}/d/shard-{{0000..0002}}.tar"):
        source = shards(url)
        plan = source.plan()
        assert plan == local.plan()
        assert images(source, plan) == images(local, plan)


def test_large_remote_shards_are_read_by_range(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slg_wds.images.tars.source.WHOLE", 100)
    local = shards(shard_set(tmp_path / "d", 1))
    source = shards(f"{web}/d/shard-0000.tar")
    assert images(source, local.plan()) == images(local, local.plan())
