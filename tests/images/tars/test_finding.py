"""Where shards of images are found: splits, _info.json, buckets and web servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from slg_wds.errors import ImageSourceError, NoImagesError, NotFoundError, UsageError
from slg_wds.images import open_source
from slg_wds.store import open_store
from support.images.sources import images, shard_set, shards
from support.servers.s3 import S3Server
from support.servers.website import web_server


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


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    with web_server(tmp_path) as script:
        yield script.url


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
