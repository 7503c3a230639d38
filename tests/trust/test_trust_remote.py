"""inspect, verify and report give the same for a set in object storage or on a web server as for a local one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.config import parse_store_options
from slg_wds.store import Store, open_store
from support.models.names import TINY
from support.servers.s3 import S3Server
from support.servers.website import own_certificate, web_server
from support.sets import trust_sets
from support.sets.trust_sets import Objects, objects_of

DAMAGED, UNINDEXED = "train-000000.tar", "index/train-000001"


def options(given: dict[str, str]) -> list[str]:
    return ["--store-option", *(f"{name}={value}" for name, value in given.items())]


def ran(capsys, *arguments: str, code: int = 0) -> str:
    assert main([*arguments]) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    return out if code == 0 else out + err


def contents(store: Store) -> Objects:
    return {entry.name: store.read(entry.name) for entry in store.list()}


def flipped(data: bytes) -> bytes:
    at = random.Random(0).randrange(512, len(data) // 2)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def stored(made, s3_server: S3Server, s3_url: str) -> Store:
    """The set in object storage."""
    store = open_store(s3_url, s3_server.options())
    for name, data in objects_of(made.labels).items():
        assert store.create(name, data)
    return store


@pytest.fixture
def certificate(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    yield own_certificate(tmp_path)


def same_as_here(capsys, made, url: str, given: list[str], folder: Path) -> None:
    """inspect, verify and report say of the set at the URL what they say of the folder."""
    for more in ([], ["--key", slg_wds.open_labels(str(made.labels)).shard(1).samples[0].key]):
        here = json.loads(ran(capsys, "inspect", str(made.labels), "--json", *more))
        there = json.loads(ran(capsys, "inspect", url, "--json", *more, *given))
        for name in here.keys() - {"url", "progress", "shards"}:
            assert there[name] == here[name], name
    checks = ["--processes", "1", "--json"]
    here = json.loads(ran(capsys, "verify", str(made.labels), *checks))
    there = json.loads(ran(capsys, "verify", url, *checks, *given))
    assert there["ok"] and all(there[n] == here[n] for n in ("shards", "samples", "crops", "images", "bytes"))
    assert "8 images of 2 shards" in ran(capsys, "report", url, "-o", str(folder / "there.html"), *given)
    ran(capsys, "report", str(made.labels), "-o", str(folder / "here.html"))
    pages = [data_of(folder / f"{name}.html") for name in ("there", "here")]
    assert pages[0] == pages[1] and len(pages[0]["images"]) == 8


def data_of(page: Path) -> dict:
    """What the page's script reads, but for the set's name."""
    text = (
        page.read_text().partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    )
    return {name: value for name, value in json.loads(text).items() if name != "sets"}


def test_in_object_storage(made, stored, s3_server, capsys, tmp_path):
    same_as_here(capsys, made, stored.url, options(s3_server.options()), tmp_path)


def test_on_a_web_server(made, certificate, capsys, tmp_path):
    with web_server(made.labels.parent, certificate=certificate) as script:
        given = options({"root_certificate": certificate[0].read_text()})
        same_as_here(capsys, made, f"{script.url}/{made.labels.name}", given, tmp_path)


def test_damage_in_object_storage_is_named_and_mended(made, stored, s3_server, small_images, capsys):
    whole, given = contents(stored), options(s3_server.options())
    verify = ["verify", stored.url, "--processes", "1", *given]
    for name, data in ((DAMAGED, flipped(whole[DAMAGED])), (UNINDEXED, None)):
        stored.delete(name)
        assert data is None or stored.create(name, data)
    said = ran(capsys, *verify, code=1)
    assert "train-000000" in said and "train-000001" in said and "2 problems" in said
    reader = [*verify[: -len(given)], "--fix", *options(s3_server.options("reader"))]
    assert "AccessDenied" in ran(capsys, *reader, code=1)
    assert UNINDEXED not in contents(stored)
    assert "rebuilt index/train-000001" in ran(capsys, *verify, "--fix", code=1)
    assert contents(stored) == {**whole, DAMAGED: flipped(whole[DAMAGED])}
    said = ran(capsys, *verify, "--delete-damaged", code=1)
    assert "damaged, and removed" in said and "removed train-000000.tar" in said
    assert whole.keys() - contents(stored).keys() == {DAMAGED, "index/train-000000", "_info.json"}
    trust_sets.make(
        small_images, stored.url, embed_images=None if made.images else "original",
        store_options=parse_store_options(given[1:]),
    )  # fmt: skip
    assert contents(stored) == whole
    teacher = [
        "-a",
        TINY,
        "--teacher_source",
        "private",
        *(["--teacher", str(made.images)] if made.images else []),
    ]
    assert "the labels are the teachers'" in ran(capsys, *verify, *teacher)


def test_damage_on_a_web_server_is_named_and_left(made, capsys, tmp_path):
    folder = trust_sets.copy_of(made.labels, tmp_path / "set")
    (folder / DAMAGED).write_bytes(flipped((folder / DAMAGED).read_bytes()))
    before = objects_of(folder)
    with web_server(tmp_path) as script:
        verify = ["verify", f"{script.url}/set", "--processes", "1"]
        assert "train-000000" in ran(capsys, *verify, code=1)
        for more in (["--fix"], ["--delete-damaged"]):
            assert "a web server can only be read" in ran(capsys, *verify, *more, code=1)
    assert objects_of(folder) == before
