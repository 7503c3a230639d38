"""verify names each problem, repairs what it can, and leaves the rest to generate."""

import json

import pytest

from slg_wds.cli import main
from support.programs import tool
from support.sets import replay_sets

KILL = tool("kill_test")
ONE = ("--processes", "1")


def make(photographs, target):
    replay_sets.make(photographs, target, num_crops=30, samples_per_shard=9)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture
def labels(photographs, tmp_path):
    make(photographs, tmp_path / "set")
    return tmp_path / "set"


def test_a_whole_set_is_well(labels, capsys):
    assert main(["verify", str(labels), "--processes", "2"]) == 0
    assert "well" in capsys.readouterr().out


def test_each_damage_is_named_and_mended(photographs, labels, capsys):
    whole = KILL.contents(labels)
    flip(labels / "train-000001.tar", 3000)
    (labels / "train-000002.tar").chmod(0o644)
    (labels / "train-000002.tar").write_bytes((labels / "train-000002.tar").read_bytes()[:-2048])
    (labels / "index" / "train-000003").unlink()
    assert main(["verify", str(labels), *ONE]) == 1
    out = capsys.readouterr().out
    assert "train-000001" in out and "train-000002" in out and "train-000003" in out
    assert "train-000000" not in out
    assert main(["verify", str(labels), "--fix", *ONE]) == 1  # the damaged shards are still there
    assert KILL.contents(labels)["index/train-000003"] == whole["index/train-000003"]
    assert (labels / "train-000001.tar").exists()
    assert main(["verify", str(labels), "--fix", "--delete-damaged", *ONE]) == 1  # they are missing now
    assert not (labels / "train-000001.tar").exists() and not (labels / "train-000002.tar").exists()
    make(photographs, labels)
    assert KILL.contents(labels) == whole
    assert main(["verify", str(labels), *ONE]) == 0


def test_inspect_says_what_the_set_is(labels, capsys):
    assert main(["inspect", str(labels), "--json"]) == 0
    text = json.dumps(json.loads(capsys.readouterr().out))
    assert "marginal_smoothing_k5" in text and "30" in text
