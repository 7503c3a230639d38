"""What WebDataset silently loses, alters or executes: each is demonstrated first, then caught here."""

from __future__ import annotations

import gc
import io
import os
import pickle
import tarfile
import warnings
from pathlib import Path

import pytest
import webdataset

import slg_wds
from slg_wds.config import VerifyConfig
from slg_wds.errors import ImageShardError, ShardError, SlgWdsError, UsageError
from slg_wds.format.shards.shard import read_shard
from slg_wds.format.shards.tar import members
from slg_wds.images import open_source
from slg_wds.report.reading.sets import ReportedSets
from slg_wds.store import Location
from slg_wds.verification.verify import verify
from support.sets import trust_sets
from support.sets.trust_sets import checked, copy_of, loader_of, objects_of, opened, walked

SHARD = "train-000000.tar"


def stock(url: Path | str) -> list[dict]:
    """What WebDataset reads, to its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ResourceWarning: it leaves its files to the garbage collector
        dataset = webdataset.WebDataset(str(url), shardshuffle=False, empty_check=False)
        samples = [
            {name: value for name, value in sample.items() if name not in ("__url__", "__local_path__")}
            for sample in dataset
        ]
        del dataset
        gc.collect()
    return samples


@pytest.fixture
def labels(made, tmp_path) -> Path:
    return copy_of(made.labels, tmp_path / "set")


def caught(made, labels: Path) -> None:
    """The damaged first shard is refused by all three readers."""
    set_ = opened(objects_of(labels))
    assert checked(set_, 0, (labels / SHARD).read_bytes()).problems
    with pytest.raises(SlgWdsError) as raised:
        list(slg_wds.open_labels(str(labels)))
    assert raised.value.shard == SHARD
    with pytest.raises(SlgWdsError) as raised:
        walked(loader_of(labels, made.images))
    assert raised.value.shard == SHARD


def of_second_sample(data: bytes) -> int:
    """Where the second sample's first header begins."""
    found = [m for m in members(memoryview(data)) if m.name.endswith(".slg.msgpack")]
    return found[0].offset + -(-found[0].size // 512) * 512


def test_a_tar_that_ends_between_members(made, labels):
    data = (labels / SHARD).read_bytes()
    (labels / SHARD).write_bytes(data[: of_second_sample(data)])
    assert len(stock(labels / SHARD)) == 1  # of four, and no error
    caught(made, labels)


def test_one_byte_of_a_header(made, labels):
    data = bytearray((labels / SHARD).read_bytes())
    data[of_second_sample(bytes(data)) + 3] ^= 4
    (labels / SHARD).write_bytes(data)
    assert len(stock(labels / SHARD)) == 1
    # The loader reads by the index, so it has no need of the header; the two that read shards whole refuse it.
    assert len(walked(loader_of(labels, made.images))) == 2
    with pytest.raises(ShardError, match="the tar header at byte"):
        opened(objects_of(labels)).shard(0)
    assert checked(opened(objects_of(labels)), 0, bytes(data)).problems


def test_a_byte_of_a_payload(made, labels):
    data = bytearray((labels / SHARD).read_bytes())
    before = stock(labels / SHARD)
    record = next(m for m in members(memoryview(bytes(data))) if m.name.endswith(".slg.msgpack"))
    data[record.offset + record.size // 2] ^= 1
    (labels / SHARD).write_bytes(data)
    after = stock(labels / SHARD)
    assert len(after) == len(before) and after != before  # passed on as it is
    caught(made, labels)


def test_a_writer_that_an_exception_ends(made, labels):
    """ShardWriter publishes what it has; here nothing appears that was not finished, and theirs is no shard."""
    folder = labels.parent / "theirs"
    folder.mkdir()
    with (
        pytest.raises(RuntimeError),
        webdataset.ShardWriter(str(folder / "x-%06d.tar"), verbose=0) as writer,
    ):
        writer.write({"__key__": "a", "cls": b"1"})
        raise RuntimeError
    partial = (folder / "x-000000.tar").read_bytes()
    assert len(stock(folder / "x-000000.tar")) == 1
    with pytest.raises(ShardError):
        read_shard(partial)
    (labels / SHARD).write_bytes(partial)
    caught(made, labels)


def test_generation_that_an_exception_ends_publishes_nothing(small_images, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    copy = copy_of(small_images, images / "data")
    *_, last = sorted(copy.rglob("*.jpg"))
    last.write_bytes(last.read_bytes()[:300])
    with pytest.raises(SlgWdsError):
        trust_sets.make(copy, tmp_path / "set", samples_per_shard=8)
    assert not list((tmp_path / "set").rglob("*.tar"))


def tar_of(path: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_names_that_differ_after_the_first_dot(small_images, tmp_path):
    first, second, *_ = (path.read_bytes() for path in sorted(small_images.rglob("*.jpg")))
    tar = tar_of(tmp_path / "images-0.tar", {"a/img1.0.jpg": first, "a/img1.1.jpg": second})
    assert [sorted(sample) for sample in stock(tar)] == [["0.jpg", "1.jpg", "__key__"]]  # one sample
    with pytest.raises(ImageShardError, match=r"'a/img1' .*has no image .only 0\.jpg, 1\.jpg.*rename them"):
        open_source(str(tar)).plan(0, 256)
    folder = tmp_path / "folder" / "train" / "a"
    folder.mkdir(parents=True)
    (folder / "img1.0.jpg").write_bytes(first)
    (folder / "img1.1.jpg").write_bytes(second)
    labels = trust_sets.make(tmp_path / "folder", tmp_path / "set", class_map=class_map(tmp_path))
    assert sorted(record.path for record in slg_wds.open_labels(str(labels))) == [
        "a/img1.0.jpg",
        "a/img1.1.jpg",
    ]
    assert len(stock(labels / SHARD)) == 2


def class_map(folder: Path) -> str:
    (folder / "classes").write_text("a 3\n")
    return str(folder / "classes")


@pytest.mark.parametrize("call", ["generate", "inspect", "verify", "loader", "report", "import"])
def test_pipe_urls_run_nothing(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"pipe:touch {tmp_path}/OWNED; cat {tmp_path}/x.tar"
    tar_of(tmp_path / "x.tar", {"a.cls": b"1"})
    assert len(stock(url)) == 1 and (tmp_path / "OWNED").exists()
    (tmp_path / "OWNED").unlink()
    calls = {
        "generate": lambda: slg_wds.generate(slg_wds.GenerateConfig(data=url, arch="x", save_path="out")),
        "inspect": lambda: slg_wds.open_labels(url),
        "verify": lambda: verify(VerifyConfig(labels=url)),
        "loader": lambda: slg_wds.SoftLabelLoader(url, url, global_batch_size=4),
        "report": lambda: ReportedSets([Location(url)]),
        "import": lambda: slg_wds.import_fkd(slg_wds.ImportConfig(fkd_dir=url, images=url, save_path="out")),
    }
    with pytest.raises(UsageError, match=r"neither a URL nor a path"):
        calls[call]()
    assert not (tmp_path / "OWNED").exists()


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_members_that_unpickle(made, labels, small_images, tmp_path):
    harm = pickle.dumps(Harm(tmp_path / "OWNED"))
    photograph = next(small_images.rglob("*.jpg")).read_bytes()
    tar = tar_of(tmp_path / "images-0.tar", {"a.jpg": photograph, "a.pyd": harm})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        list(webdataset.WebDataset(str(tar), shardshuffle=False).decode("rgb8"))
        gc.collect()
    assert (tmp_path / "OWNED").exists()
    (tmp_path / "OWNED").rmdir()
    trust_sets.make(tar, tmp_path / "own", samples_per_shard=256)
    assert [record.key for record in slg_wds.open_labels(str(tmp_path / "own"))] == ["a"]
    data = (labels / SHARD).read_bytes()
    found = [(m.name, data[m.offset : m.offset + m.size]) for m in members(memoryview(data))]
    key = found[0][0].partition(".")[0]
    tar_of(labels / SHARD, {f"{key}.pkl": harm, **dict(found)})
    caught(made, labels)
    assert not (tmp_path / "OWNED").exists()
