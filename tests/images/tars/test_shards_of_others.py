"""Image shards from other tools: how they are read, and the errors for what cannot be used."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from slg_wds.errors import (
    DuplicateKeyError,
    ImageDecodeError,
    ImageShardError,
    ImageSourceError,
    NoTargetsError,
    SlgWdsError,
    UsageError,
)
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from slg_wds.store import open_store
from support.images.sources import Files, images, opened, samples, shard_set, shards, tar_bytes
from support.servers.s3 import S3Server


def restarting(root: Path, *names: str) -> Path:
    """Tars in each of which the keys begin at 00000 again."""
    for at, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        files = [(f"{n:05d}.jpg", f"{at} {n}".encode()) for n in range(3)]
        (root / name).write_bytes(tar_bytes(files))
    return root


def one_tar(root: Path, files: Files) -> Path:
    (root / "a.tar").write_bytes(tar_bytes(files))
    return root / "a.tar"


# Keys that restart


def test_keys_that_restart_are_named_with_their_tars_and_the_option(tmp_path: Path) -> None:
    root = restarting(tmp_path, "x-0.tar", "x-1.tar", "x-2.tar")
    with pytest.raises(DuplicateKeyError) as caught:
        shards(root).plan()
    assert str(caught.value) == (
        f"the key 00000 is in x-0.tar and in x-1.tar (and so do 5 more keys) (url {root}); "
        "--prefix-keys puts the tar's name before each key"
    )


def test_prefixed_keys(tmp_path: Path) -> None:
    root = restarting(tmp_path, "x-0.tar", "x.1-2.tar", "__y__.tar")
    plan = shards(root, prefix_keys=True).plan()
    assert plan.keys[:] == [f"{tar}/{n:05d}" for tar in ("%5F_y__", "x-0", "x.1-2") for n in range(3)]
    assert plan.paths[:4] == ["__y__/00000.jpg", "__y__/00001.jpg", "__y__/00002.jpg", "x-0/00000.jpg"]
    assert images(shards(root), plan) == [f"{at} {n}".encode() for at in (2, 0, 1) for n in range(3)]
    assert decode_plan(encode_plan(plan)) == plan


def test_keys_of_one_tar_are_never_told_to_be_prefixed(tmp_path: Path) -> None:
    path = one_tar(tmp_path, [("1.jpg", b"a"), ("2.jpg", b"b"), ("1.jpg", b"c")])
    with pytest.raises(DuplicateKeyError, match="the same image appears twice"):
        shards(path, prefix_keys=True).plan()


# Tars in sub-folders, and of the same name


def test_tars_of_one_name_in_sub_folders(tmp_path: Path) -> None:
    root = restarting(tmp_path / "data", "a/0.tar", "b/0.tar", "b/c/0.tar")
    source = shards(root, prefix_keys=True)
    plan = source.plan()
    assert plan.image_shards == ["a/0.tar", "b/0.tar", "b/c/0.tar"]
    assert plan.shard_names == ["a-0", "b-0", "b-c-0"]
    assert plan.keys[3:6] == ["b/0/00000", "b/0/00001", "b/0/00002"]
    assert images(source, plan) == [f"{at} {n}".encode() for at in range(3) for n in range(3)]
    assert shards(f"{root}/{{a,b,b/c}}/0.tar", prefix_keys=True).plan() == plan
    assert decode_plan(encode_plan(plan)) == plan


def test_a_pattern_over_folders_keeps_plain_names_where_they_differ(tmp_path: Path) -> None:
    for folder, name in (("a", "x-0"), ("b", "x-1")):
        shard_set(tmp_path / folder, 1, prefix=name)
    source = shards(f"{tmp_path}/{{a/x-0,a/x-0-1,b/x-1}}-0000.tar".replace(",a/x-0-1", ""), prefix_keys=True)
    plan = source.plan()
    assert plan.image_shards == ["x-0-0000.tar", "x-1-0000.tar"]
    assert len(images(shards(tmp_path), plan)) == 10  # found again below another root


def test_label_shards_that_would_share_a_name(tmp_path: Path) -> None:
    root = restarting(tmp_path, "a/b.tar", "c/a-b.tar", "a-b/x.tar", "a/b/x.tar")
    with pytest.raises(ImageSourceError, match=r"of a-b/x\.tar and a/b/x\.tar would both be named a-b-x"):
        shards(root, prefix_keys=True).plan()
    bad = restarting(tmp_path / "bad", "x{1}.tar")
    with pytest.raises(ImageSourceError, match=r"cannot be named as the tar 'x\{1\}\.tar'.*rename"):
        shards(bad).plan()


def test_splits_and_label_sets_among_sub_folders(tmp_path: Path) -> None:
    root = restarting(tmp_path, "in-train/0.tar", "in-val/0.tar", "labels/train-0.tar", "._x/0.tar")
    for name in ("slg.json", "plan"):
        (tmp_path / "labels" / name).write_text("{}")
    source = shards(root)
    assert source.plan().image_shards == ["in-train/0.tar"]
    assert source.ignored == {"tars of other splits": 1, "hidden folders": 1}
    assert shards(root, split="val").plan().image_shards == ["in-val/0.tar"]
    restarting(tmp_path, "top.tar", "._top.tar")
    direct = shards(root)
    assert direct.plan().image_shards == ["top.tar"]
    assert direct.ignored == {"hidden tars": 1, "tars in sub-folders": 2}


def test_sub_folders_of_a_bucket(s3_url: str, s3_server: S3Server, tmp_path: Path) -> None:
    root = restarting(tmp_path / "d", "a/0.tar", "b/0.tar")
    store = open_store(s3_url, s3_server.options())
    for path in root.rglob("*.tar"):
        store.create(f"d/{path.relative_to(root)}", path.read_bytes())
    local = shards(root, prefix_keys=True).plan()
    for url in (f"{s3_url}/d", f"{s3_url}/d/{{a,b}}/0.tar"):
        source = shards(url, prefix_keys=True, store_options=s3_server.options())
        assert source.plan() == local
        assert len(images(source, local)) == 6


# Which members are the image and the target


def test_compound_extensions_are_taken_when_named(tmp_path: Path) -> None:
    files = [("1.input.jpg", b"a"), ("1.seg.png", b"m"), ("2.INPUT.JPG", b"b"), ("2.seg.png", b"m")]
    path = one_tar(tmp_path, files)
    with pytest.raises(
        ImageShardError, match=r"has no image \(only input\.jpg, seg\.png\).*--image-field input\.jpg"
    ):
        shards(path).plan()
    source = shards(path, image_field="input.jpg")
    plan = source.plan()
    assert (plan.paths[:], plan.keys[:]) == (["1.input.jpg", "2.INPUT.JPG"], ["1%2Einput", "2%2EINPUT"])
    assert images(source, plan) == [b"a", b"b"]
    assert images(source, shards(path, image_field=".none, SEG.png").plan()) == [b"m", b"m"]
    with pytest.raises(ImageShardError, match=r"no image \.1\.jpg \(only input\.jpg, seg\.png\)"):
        shards(path, image_field="1.jpg").plan()
    with pytest.raises(UsageError, match="--image-field 'jpg,' names no extension"):
        shards(path, image_field="jpg,")


def test_jfif_is_an_image(tmp_path: Path) -> None:
    plan = shards(one_tar(tmp_path, [("1.cls", b"3"), ("1.jfif", b"a")])).plan()
    assert (plan.paths[:], plan.targets.tolist()) == (["1.jfif"], [3])
    (tmp_path / "folder/cat").mkdir(parents=True)
    (tmp_path / "folder/cat/1.JFIF").write_bytes(b"a")
    assert opened(tmp_path / "folder").plan(0, 8).paths[:] == ["cat/1.JFIF"]


@pytest.mark.parametrize(
    ("field", "member", "content", "target"),
    [
        (None, "cls", b"7.0\n", 7),
        (None, "cls", b"[7]", 7),
        (None, "json", b'{"label": 7.0}', 7),
        (None, "json", b'{"label": "7"}', 7),
        (None, "json", b'{"target": [7]}', 7),
        (None, "json", b'{"label": null}', -1),
        ("txt", "txt", b" 7 ", 7),
        (".TXT", "txt", b"-1", -1),
        ("y.idx", "y.idx", b"7", 7),
        ("y", "json", b'{"y": 7}', 7),
        ("json.y", "json", b'{"y": 7}', 7),
        ("json:y", "json", b'{"y": 7}', 7),
        ("json:meta.label", "json", b'{"meta": {"label": 7}, "label": 1}', 7),
        ("meta.label", "json", b'{"meta": {"label": 7}, "label": 1}', 7),
        ("json.labels.1", "json", b'{"labels": [1, 7]}', 7),
        ("more.json:y", "more.json", b'{"y": 7}', 7),
        ("json", "json", b"7", 7),
        ("json", "json", b'{"class": 7}', 7),
    ],
)
def test_targets_wherever_they_stand(
    tmp_path: Path, field: str | None, member: str, content: bytes, target: int
) -> None:
    files = [("1.jpg", b"a"), (f"1.{member}", content), ("2.jpg", b"a"), (f"2.{member}", content)]
    assert shards(one_tar(tmp_path, files), target_field=field).plan().targets.tolist() == [target] * 2


@pytest.mark.parametrize(
    ("field", "member", "content", "message"),
    [
        (None, "cls", b"cat", r"'1\.cls' at byte \d+ is no class number: 'cat'.*--class-map FILE"),
        (None, "json", b'{"label": "a cat"}', r"no class number: 'a cat'.*--target-field"),
        (None, "json", b'{"label": [1, 2]}', r"a list of 2; --target-field json:label\.0"),
        (None, "json", b'{"label": 7.5}', r"no class number: float '7\.5'"),
        (None, "json", b'{"label": true}', "no class number: bool 'True'"),
        (None, "json", b'{"label": {}}', "no class number: dict"),
        (None, "cls", b"\xff\xfe", "no class number: not UTF-8"),
        ("cls", "txt", b"7", r"sample '1' has no target \.cls \(only jpg, txt\)"),
        ("json:a.b", "json", b'{"a": {"c": 1}}', r"there is no a\.b in it"),
        ("json:a.2", "json", b'{"a": [1]}', r"there is no a\.2 in it"),
        ("txt", "txt", b"word " * 50, "a text of 249 characters"),
        ("txt", "txt", b"4294967296", r"'1\.txt' at byte \d+ is 4294967296"),
    ],
)
def test_targets_that_cannot_be(
    tmp_path: Path, field: str | None, member: str, content: bytes, message: str
) -> None:
    with pytest.raises(ImageShardError, match=message):
        shards(one_tar(tmp_path, [("1.jpg", b"a"), (f"1.{member}", content)]), target_field=field).plan()


@pytest.mark.parametrize("field", ["", ":a", "json:", "json:a..b", "a..b", "json..b"])
def test_target_fields_that_cannot_be(tmp_path: Path, field: str) -> None:
    with pytest.raises(UsageError, match="empty part" if field else "--target-field is empty"):
        shards(one_tar(tmp_path, samples(0, 1)), target_field=field)


def test_names_of_classes_are_numbered_as_class_folders_are(tmp_path: Path) -> None:
    files: Files = []
    for at, name in enumerate((b"dog", b"cat\n", "\u00e9mu".encode(), b"dog")):
        files += [(f"{at}.cls", name), (f"{at}.jpg", b"a")]
    source = shards(one_tar(tmp_path, files), target_field="cls")
    assert source.classes == ["cat", "dog", "\u00e9mu"]
    assert source.plan().targets.tolist() == [1, 0, 2, 1]
    assert source.plan(target_of=[281, 207, None]).targets.tolist() == [207, 281, -1, 207]
    mixed = one_tar(tmp_path, [*files, ("9.cls", b"3"), ("9.jpg", b"a")])
    with pytest.raises(
        ImageSourceError, match=r"some targets are numbers \(3\) and some are names \('dog'\)"
    ):
        shards(mixed, target_field="cls").plan()
    class_map = tmp_path / "classes.txt"
    class_map.write_text("3 0\ncat 1\ndog 2\n\u00e9mu 3\n", encoding="utf-8")
    assert shards(mixed, class_map=str(class_map)).classes == ["3", "cat", "dog", "\u00e9mu"]


def test_numbers_without_a_class_map_have_no_names(tmp_path: Path) -> None:
    path = one_tar(tmp_path, samples(0, 3))
    assert shards(path).classes is None
    assert shards(path, target_field="cls").classes is None
    (tmp_path / "classes.txt").write_text("0 7\n1 8\n2 9\n")
    assert shards(path, class_map=str(tmp_path / "classes.txt")).classes == ["0", "1", "2"]


# Classes of tars


def class_tars(root: Path, *names: str, **more: bytes) -> Path:
    root.mkdir(exist_ok=True)
    for name in names:
        files: Files = [(f"{name}_{n}.JPEG", f"{name} {n}".encode()) for n in range(2)]
        files += [(f"{name}_0.{extension}", content) for extension, content in more.items()]
        (root / f"{name}.tar").write_bytes(tar_bytes(sorted(files)))
    return root


def test_class_tars_as_imagenet_ships_them_give_targets(tmp_path: Path) -> None:
    source = shards(class_tars(tmp_path, "n01443537", "n01440764"), need_targets=True)
    assert source.classes == ["n01440764", "n01443537"]
    plan = source.plan()
    assert plan.targets.tolist() == [0, 0, 1, 1]
    assert plan.shard_names == ["n01440764", "n01443537"]
    assert plan.paths[0] == "n01440764_0.JPEG"


def test_targets_in_the_samples_go_before_the_names_of_tars(tmp_path: Path) -> None:
    assert shards(class_tars(tmp_path, "n01440764", cls=b"5")).plan().targets.tolist() == [5, -1]


def test_other_tars_are_classes_when_asked(tmp_path: Path) -> None:
    root = class_tars(tmp_path, "dog", "cat")
    with pytest.raises(NoTargetsError):
        shards(root, need_targets=True).plan()
    source = shards(root, target_field="tar")
    assert (source.classes, source.plan().targets.tolist()) == (["cat", "dog"], [0, 0, 1, 1])


def test_the_outer_tar_of_imagenet_names_what_to_do(tmp_path: Path) -> None:
    inner = tar_bytes([("n01440764_1.JPEG", b"a")])
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes([("n01440764.tar", inner)]))
    with pytest.raises(ImageShardError, match=r"holds tars \('n01440764\.tar'\), not images .*tar -xf"):
        shards(tmp_path).plan()


# Samples without an image


def test_samples_without_an_image_are_planned_to_be_left_out(tmp_path: Path) -> None:
    files = [("1.jpg", b"a"), ("2.json", b"{}"), ("2.txt", b"x"), ("3.cls", b"4"), ("3.jpg", b"b")]
    path = one_tar(tmp_path, files)
    with pytest.raises(ImageShardError, match=r"the sample '2' .* has no image \(only json, txt\)"):
        shards(path).plan()
    source = shards(path, on_error="skip")
    plan = source.plan()
    assert (plan.paths[:], plan.keys[:]) == (["1.jpg", "2.json", "3.jpg"], ["1", "2", "3"])
    assert plan.targets.tolist() == [-1, -1, 4]
    read = source.reader(plan, 0)
    assert (read(0), read(2)) == (b"a", b"b")
    with pytest.raises(ImageDecodeError, match="the sample has no image"):
        read(1)
    with pytest.raises(ImageShardError, match="has no image"):  # not one has: another option is wrong
        shards(path, on_error="skip", image_field="png").plan()


# What is no tar


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize(
    ("name", "compress"),
    [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress), ("zstd", zst)],
)
def test_compressed_tars_are_named_as_such(tmp_path: Path, name: str, compress: Any) -> None:
    (tmp_path / "a.tar").write_bytes(compress(tar_bytes(samples(0, 2))))
    with pytest.raises(
        ImageShardError, match=rf"this is not a tar but a {name} file .*a\.tar.*decompress it"
    ):
        shards(tmp_path / "a.tar").plan()


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.TAR.GZ", "a.tar.zst"])
def test_compressed_tars_by_name(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / name, "w:gz"):
        pass
    for url in (tmp_path / name, tmp_path, f"{tmp_path}/{{a,b}}{name[1:]}"):
        with pytest.raises(ImageSourceError, match=r"the tars are compressed .*gunzip"):
            opened(url)
    shard_set(tmp_path, 1)
    assert shards(tmp_path).ignored == {"compressed tars": 1}
    (tmp_path / "shard-0000.tar").unlink()
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.jpg").touch()
    assert opened(tmp_path).kind == "folder"


def test_no_message_has_a_traceback_for_json_of_any_shape(tmp_path: Path) -> None:
    for document in (1e308, [[[3]]], {"label": [[4]]}, {"label": {"a": 1}}, "x", None, {"label": 10**30}):
        path = one_tar(tmp_path, [("1.jpg", b"a"), ("1.json", json.dumps(document).encode())])
        try:
            shards(path).plan()
        except SlgWdsError as error:
            assert "1.json" in str(error) and len(str(error)) < 500
