"""Folders of images: torchvision's ImageFolder is the oracle for classes, targets and paths."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from slg_wds.errors import (
    DuplicateKeyError,
    ImageSourceError,
    NoImagesError,
    NoTargetsError,
    NotFoundError,
    SlgWdsError,
    StoreError,
    UsageError,
)
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from slg_wds.format.shards.names import key_of
from slg_wds.images import read_class_map
from slg_wds.images.folder import ignored_kinds
from slg_wds.images.order import keys_of, shuffled
from slg_wds.store import open_store
from support.images.sources import FILES, fill, folder, opened, planned
from support.servers.s3 import S3Server


def test_classes_targets_and_paths_are_image_folders(tmp_path: Path) -> None:
    (fill(tmp_path) / "empty").mkdir()
    oracle = ImageFolder(str(tmp_path), allow_empty=True)
    source = folder(tmp_path)
    assert source.classes == oracle.classes == ["cat", "dog", "empty", "Émile"]
    assert planned(source) == {os.path.relpath(path, tmp_path): target for path, target in oracle.samples}
    assert source.ignored == {".txt": 1, ".db": 1, "": 1, ".gif": 1}
    assert source.plan(0, 8).num_samples == 8


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    fill(tmp_path / "store")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/linked").symlink_to(tmp_path / "store/cat")
    (tmp_path / "data/dog").mkdir()
    (tmp_path / "data/dog/more").symlink_to(tmp_path / "store/dog")
    oracle = ImageFolder(str(tmp_path / "data"))
    assert planned(folder(tmp_path / "data")) == {
        os.path.relpath(path, tmp_path / "data"): target for path, target in oracle.samples
    }
    (tmp_path / "store/dog/loop").symlink_to(tmp_path / "data/dog")
    with pytest.raises(ImageSourceError, match="leads back"):
        folder(tmp_path / "data")


def test_split_folders(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    fill(tmp_path / "val", ("cat/v.jpg", "dog/v.jpg"))
    assert len(planned(folder(tmp_path))) == 8
    assert folder(tmp_path).plan(0, 4).shard_names == ["train-000000", "train-000001"]
    for source in (folder(tmp_path, split="val"), folder(tmp_path, default_split="val")):
        assert planned(source) == {"cat/v.jpg": 0, "dog/v.jpg": 1}
        assert source.plan(0, 4).shard_names == ["val-000000"]
    assert folder(tmp_path / "val").plan(0, 4).shard_names == ["train-000000"]
    with pytest.raises(NoImagesError, match=r"no folder test .*there are: train, val"):
        folder(tmp_path, split="test")
    with pytest.raises(NoImagesError, match="no folder test"):
        folder(tmp_path, default_split="test")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, ("bus/1.jpg", "car/1.jpg", "train/1.jpg"))
    assert folder(tmp_path).classes == ["bus", "car", "train"]
    assert folder(tmp_path, split="train").classes is None


def test_flat_folder_has_no_targets(tmp_path: Path) -> None:
    fill(tmp_path, ("b.jpg", "a.png", "c.md"))
    (tmp_path / ".cache").mkdir()
    source = folder(tmp_path)
    assert source.classes is None
    assert planned(source) == {"a.png": -1, "b.jpg": -1}
    with pytest.raises(NoTargetsError):
        folder(tmp_path, need_targets=True)


def test_images_beside_class_folders_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, ("cat/1.jpg", "stray.jpg", "stray.txt"))
    source = folder(tmp_path)
    assert planned(source) == {"cat/1.jpg": 0}
    assert source.ignored == {"outside class folders": 1, ".txt": 1}


def test_targets_are_mapped(tmp_path: Path) -> None:
    fill(tmp_path, ("a/1.jpg", "b/1.jpg", "c/1.jpg"))
    source = folder(tmp_path)
    for mapping in ([7, None, 5], lambda number: [7, None, 5][number]):
        assert planned(source, target_of=mapping) == {"a/1.jpg": 7, "b/1.jpg": -1, "c/1.jpg": 5}
    assert planned(source, target_of=np.array([3, 2, 1])) == {"a/1.jpg": 3, "b/1.jpg": 2, "c/1.jpg": 1}
    with pytest.raises(ImageSourceError, match="class 2 is outside the 2 classes"):
        planned(source, target_of=[0, 1])
    with pytest.raises(ImageSourceError, match="-5"):
        planned(source, target_of=[0, 1, -5])


def test_plan_is_a_pure_function_of_names_and_seed(tmp_path: Path) -> None:
    names = tuple(f"{c}/{i}.jpg" for c in "abc" for i in range(20))
    fill(tmp_path / "one", names)
    fill(tmp_path / "two", names[::-1])
    plans = [encode_plan(folder(tmp_path / root).plan(5, 16)) for root in ("one", "two")]
    assert plans[0] == plans[1]
    plan = decode_plan(plans[0])
    assert plan.shard_sizes.tolist() == [16, 16, 16, 12]
    words = np.random.Philox(key=5).random_raw(60).tolist()
    expected = [path for _, path in sorted(zip(words, sorted(names), strict=True))]
    assert plan.paths[:] == expected
    assert plan.keys[:] == [path[:-4] for path in expected]
    assert folder(tmp_path / "one").plan(6, 16) != plan
    for wrong in ((-1, 16), (0, 0)):
        with pytest.raises(UsageError):
            folder(tmp_path / "one").plan(*wrong)


def test_the_order_is_pinned() -> None:
    assert shuffled(10, 0).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert sorted(shuffled(1000, 2**64 - 1).tolist()) == list(range(1000))


def test_readers_read(tmp_path: Path) -> None:
    source = folder(fill(tmp_path))
    plan = source.plan(0, 3)
    for shard in range(plan.num_shards):
        read = source.reader(plan, shard)
        part = plan.shard(shard)
        assert [read(n) for n in range(part.start, part.stop)] == [path.encode() for path in part.paths]
    (tmp_path / "cat/1.jpg").unlink()
    with pytest.raises(NotFoundError, match=r"cat/1\.jpg"):
        source.read("cat/1.jpg")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "it is empty"),
        (("a/b/",), "folders are empty"),
        (("a/x.txt", "a/y.mp4", "README"), r"no images; all that is there: .*\.mp4 \(1\).*images end in"),
    ],
)
def test_nothing_there(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        (tmp_path / name).mkdir(parents=True) if name.endswith("/") else fill(tmp_path, (name,))
    with pytest.raises(NoImagesError, match=message) as caught:
        folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_missing_folder_or_a_file(tmp_path: Path) -> None:
    with pytest.raises(NoImagesError, match=r"no such folder .*nowhere"):
        folder(tmp_path / "nowhere")
    (tmp_path / "file.jpg").touch()
    with pytest.raises(NoImagesError, match="not a file"):
        folder(tmp_path / "file.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_no_empty_one(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "dog").chmod(0)
    with pytest.raises(ImageSourceError, match="cannot be listed"):
        folder(tmp_path)


@pytest.mark.parametrize("name", [b"cat/\xff.jpg", b"\xff/a.jpg"])
def test_a_name_that_is_not_utf8(tmp_path: Path, name: bytes) -> None:
    fill(tmp_path)
    fill(tmp_path, (os.fsdecode(name),))
    with pytest.raises(ImageSourceError, match=r"udcff.* is not UTF-8"):
        folder(tmp_path)


def test_odd_names_keep_their_pixels_and_get_keys(tmp_path: Path) -> None:
    names = ("__a__/1.jpg", "b/x\ny.jpg", "b/50%.jpg", "b/..jpg", "b/.jpg", "b/ .jpg", "c.d/1.jpg")
    source = folder(fill(tmp_path, names))
    plan = source.plan(0, 10)
    assert sorted(plan.paths) == sorted(names)
    assert plan.keys[:] == [key_of(path) for path in plan.paths]
    assert [source.read(path) for path in plan.paths] == [path.encode() for path in plan.paths]


def test_duplicate_keys(tmp_path: Path) -> None:
    fill(tmp_path, ("cat/a.jpg", "cat/a.png", "cat/b.jpg", "dog/c.jpeg", "dog/c.jpg"))
    with pytest.raises(DuplicateKeyError, match=r"cat/a\.jpg and cat/a\.png .*1 more.*--keep-extensions"):
        folder(tmp_path).plan(0, 4)
    plan = folder(tmp_path, keep_extensions=True).plan(0, 8)
    assert sorted(plan.keys) == ["cat/a%2Ejpg", "cat/a%2Epng", "cat/b%2Ejpg", "dog/c%2Ejpeg", "dog/c%2Ejpg"]


SEGMENT = st.text(st.sampled_from("ab_-.%é\n 0"), min_size=1, max_size=6) | st.text(min_size=1, max_size=4)
PATHS = st.lists(SEGMENT, min_size=1, max_size=3).map("/".join)


@given(st.lists(PATHS, max_size=8), st.booleans())
def test_keys_are_key_ofs(paths: list[str], keep: bool) -> None:
    try:
        expected = [key_of(path, keep) for path in paths]
    except SlgWdsError:
        with pytest.raises(ImageSourceError):
            keys_of(paths, keep, "x")
        return
    if len(set(expected)) == len(expected):
        assert keys_of(paths, keep, "x") == expected
    else:
        with pytest.raises(DuplicateKeyError):
            keys_of(paths, keep, "x")


HIDDEN = (
    ".git/objects/1.jpg",
    ".ipynb_checkpoints/1-checkpoint.jpg",
    "__MACOSX/cat/._1.jpg",
    "cat/.ipynb_checkpoints/1-checkpoint.jpg",
    "cat/@eaDir/1.jpg/THUMB.jpg",
    "cat/._1.jpg",
    "dog/._a.1.jpg",
)


def test_hidden_folders_are_no_classes(tmp_path: Path, s3_url: str, s3_server: S3Server) -> None:
    plain, store = folder(fill(tmp_path / "plain")), open_store(s3_url, s3_server.options())
    for name in (*FILES, *HIDDEN):
        store.create(name, name.encode())
    sources = [
        folder(fill(tmp_path / "hidden", (*FILES, *HIDDEN))),
        folder(s3_url, store_options=s3_server.options()),
    ]
    for source in sources:
        assert source.plan(0, 3) == plain.plan(0, 3)
        assert source.classes == plain.classes
        assert source.ignored == {**plain.ignored, "hidden folders": 5, "AppleDouble files": 2}


def test_hidden_folders_do_not_hide_that_there_are_only_splits(tmp_path: Path) -> None:
    fill(tmp_path, ("train/1.jpg", "val/1.jpg", ".git/1.jpg"))
    assert (folder(tmp_path).url, planned(folder(tmp_path))) == (f"{tmp_path}/train", {"1.jpg": -1})


def test_apple_double_tars_are_no_shards(tmp_path: Path) -> None:
    for name in ("a.tar", "._a.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.addfile(tarfile.TarInfo(f"{name}/1.jpg"), None)
    assert opened(tmp_path).plan().shard_names == ["a"]


@pytest.mark.parametrize("place", ["labels", "runs/first", "cat/labels"])
def test_where_labels_go_is_no_class(tmp_path: Path, place: str, s3_url: str, s3_server: S3Server) -> None:
    """While it is empty, while it is known, and when it is a label set like any other."""
    options = s3_server.options()
    root, store = fill(tmp_path / "data"), open_store(s3_url, options)
    for name in FILES:
        store.create(name, name.encode())
    before = folder(root)
    (root / place).mkdir(parents=True)
    for name in ("", f"{place}/plan", f"{place}/slg.json", f"{place}/1.jpg"):
        for url, more in ((str(root), {}), (s3_url, {"store_options": options})):
            if name:
                fill(root, (name,)) if url == str(root) else store.create(name, b"x")
            known = folder(url, left_out=f"{url}/{place}", **more)
            assert (known.plan(0, 3), known.classes) == (before.plan(0, 3), before.classes)
    for source in (folder(root), folder(s3_url, store_options=options)):
        assert (source.plan(0, 3), source.classes) == (before.plan(0, 3), before.classes)
        assert source.ignored == {**before.ignored, "label sets": 1}


def test_where_labels_go_is_no_class_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill(tmp_path / "data")
    before = folder(root).classes
    (root / "labels").mkdir()
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    for path in ("data/labels", "link/labels", f"{root}/cat/../labels/", f"file://{root}/labels"):
        assert (
            folder(root, left_out=path).classes == folder(tmp_path / "link", left_out=path).classes == before
        )
    (root / "labels").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "labels").symlink_to(tmp_path / "elsewhere")
    assert folder(root, left_out=str(tmp_path / "elsewhere")).classes == before
    assert folder(root).classes != before


@pytest.mark.parametrize("name", ["pipe.jpg", "device.jpg"])
def test_a_pipe_or_device_is_an_error(tmp_path: Path, name: str) -> None:
    fill(tmp_path, ("cat/1.jpg",))
    if name == "pipe.jpg":
        os.mkfifo(tmp_path / "cat" / name)
    else:
        (tmp_path / "cat" / name).symlink_to("/dev/zero")
    source = folder(tmp_path)
    with pytest.raises(StoreError, match=rf"it is a (named pipe|device), not a file .*{name}.*; remove it"):
        source.read(f"cat/{name}")
    with pytest.raises(UsageError, match="not a file"):
        folder(tmp_path, list_file=str(tmp_path / "cat" / name))
    with pytest.raises(UsageError, match="not a file"):
        read_class_map(str(tmp_path / "cat" / name))


def test_a_bucket_of_class_folders(s3_url: str, s3_server: S3Server, tmp_path: Path) -> None:
    options = s3_server.options()
    store = open_store(s3_url, options)
    for name in FILES:
        store.create(f"train/{name}", name.encode())
        store.create(f"val/{name}", b"other")
    source = folder(s3_url, store_options=options)
    local = folder(fill(tmp_path))
    assert source.plan(3, 4) == local.plan(3, 4)
    assert (source.classes, source.ignored) == (local.classes, local.ignored)
    plan = source.plan(3, 4)
    assert source.reader(plan, 1)(5) == plan.paths[5].encode()
    with pytest.raises(NoImagesError):
        folder(f"{s3_url}/nowhere", store_options=options)


MILLION = """
import re, sys, time
import slg_wds.images.tree as tree
from slg_wds.format.manifest.plan_codec import encode_plan
from slg_wds.images import open_source

classes = [f"n{c:08d}" for c in range(1000)]

def walk_files(root):
    for name in classes:
        for i in range(1000):
            yield f"{name}/{name}_{i}.JPEG"

tree.walk_files = walk_files
tree.scan = lambda folder: (classes, [], set())
start = time.process_time()
source = open_source(sys.argv[1])
plan = source.plan(0, 256)
assert len(encode_plan(plan)) < 16e6
assert plan.num_samples == 1_000_000 and plan.num_shards == 3907
assert len(source.classes) == 1000
assert not {"torch", "PIL", "timm", "webdataset"} & set(sys.modules)
# not getrusage: its peak begins with that of the process that forked this one
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
print(time.process_time() - start, peak)
"""


@pytest.mark.slow
def test_a_million_names_are_planned_quickly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path)], capture_output=True, check=True, text=True
    )
    seconds, peak = map(float, done.stdout.split())
    assert seconds < 30
    assert peak < 1e9


def test_messages_about_what_is_not_used_are_short_and_say_what_to_do(tmp_path: Path) -> None:
    fill(tmp_path, ("images.tar.gz", "more.tgz", *(f"{n}.kind{n}" for n in range(30))))
    with pytest.raises(ImageSourceError, match="the tars are compressed"):
        opened(tmp_path)
    fill(tmp_path, ("cat/1.jpg",))
    ignored = folder(tmp_path).ignored
    assert ignored["compressed tars"] == 2 and len(ignored) == 31
    assert ignored_kinds(ignored).startswith("compressed tars, to be decompressed first (2), .kind")
    assert ignored_kinds(ignored).count(",") == 6 and ignored_kinds(ignored).endswith(", ...")
    for number in range(30):
        (tmp_path / f"class{number}").mkdir()
    with pytest.raises(NoImagesError, match=r"no folder test .*there are: cat, class0, .*, \.\.\."):
        folder(tmp_path, split="test")


@pytest.mark.parametrize("name", ["image_field", "target_field", "prefix_keys"])
def test_options_of_tars_are_refused_for_a_folder(tmp_path: Path, name: str) -> None:
    """They would change nothing: targets, for one, would be those of the folders."""
    root = fill(tmp_path)
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is for image shards"):
        folder(root, **{name: "cls"})
