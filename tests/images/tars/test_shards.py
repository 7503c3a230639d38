"""Shards of images: webdataset is the oracle for keys and targets, tarfile and TarWriter write the tars."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds

from slg_wds.errors import (
    DuplicateKeyError,
    ImageShardError,
    ImageSourceError,
    NoImagesError,
    NoTargetsError,
    SlgWdsError,
)
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from support.images.sources import FORMATS, Files, images, shard_set, shards, tar_bytes


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
