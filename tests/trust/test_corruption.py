"""Damaged bytes of a set give an error that names the shard or the correct data, never fewer samples."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import slg_wds
from slg_wds.config import VerifyConfig
from slg_wds.errors import FormatError, IncompleteSetError, ManifestError, SlgWdsError
from slg_wds.verification.verify import verify
from support.sets import trust_sets
from support.sets.trust_sets import checked, comparable, copy_of, loader_of, objects_of, opened, walked

FLIPS = 5000
LOADED = 120  # of them by the loader in the default run


def shards_of(objects: trust_sets.Objects) -> list[str]:
    return sorted(name for name in objects if name.endswith(".tar"))


def flips(objects: trust_sets.Objects, count: int) -> Iterator[tuple[int, str, bytes]]:
    """(number, name, bytes) of shards with one byte changed, anywhere in all of them."""
    chance = random.Random(1)
    names = shards_of(objects)
    for _ in range(count):
        at = chance.randrange(sum(len(objects[name]) for name in names))
        number = 0
        while at >= len(objects[names[number]]):
            at -= len(objects[names[number]])
            number += 1
        yield number, names[number], changed(objects[names[number]], at, chance.randrange(1, 256))


def changed(data: bytes, at: int, by: int) -> bytes:
    return data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]


def cuts(data: bytes) -> Iterator[bytes]:
    """Truncations at every block, and at some bytes between."""
    for end in {*range(0, len(data), 512), *range(1, len(data), 4099), len(data) - 1}:
        yield data[:end]


def noticed(labels: slg_wds.LabelSet, number: int, name: str, bad: bytes) -> None:
    """verify and open_labels find it, and say where."""
    problems = checked(labels, number, bad).problems
    assert problems and all(problem.shard == name for problem in problems)
    with pytest.raises(FormatError) as raised:
        comparable(labels.shard(number))
    assert raised.value.shard == name


def exact_or_error(loader: slg_wds.SoftLabelLoader, truth: object, name: str) -> bool:
    """Whether the loader detects the damage; if not, its output must be correct."""
    try:
        found = walked(loader)
    except SlgWdsError as error:
        assert error.shard == name
        return True
    assert found == truth
    return False


def the_loader_stands_each_flip(made, folder: Path, count: int) -> None:
    labels = copy_of(made.labels, folder / "set")
    objects = objects_of(labels)
    loader = loader_of(labels, made.images)
    truth = walked(loader)
    found = 0
    for _, name, bad in flips(objects, count):
        (labels / name).write_bytes(bad)
        found += exact_or_error(loader, truth, name)
        (labels / name).write_bytes(objects[name])
    assert walked(loader) == truth
    assert (
        count // 20 < found < count
    )  # it reads records and images by range: headers and padding it never sees


def test_every_flip_of_a_shard_is_noticed(made):
    objects = objects_of(made.labels)
    labels = opened(objects)
    for number, name, bad in list(flips(objects, FLIPS)):
        whole = objects[name]
        objects[name] = bad
        noticed(labels, number, name, bad)
        objects[name] = whole
    assert not any(checked(labels, n, objects[name]).problems for n, name in enumerate(shards_of(objects)))


def test_the_loader_gives_the_very_data_or_an_error(made, tmp_path):
    the_loader_stands_each_flip(made, tmp_path, LOADED)


@pytest.mark.slow
def test_the_loader_stands_many_flips(made, tmp_path):
    the_loader_stands_each_flip(made, tmp_path, FLIPS)


def test_every_truncation_is_noticed(made, tmp_path):
    folder = copy_of(made.labels, tmp_path / "set")
    objects = objects_of(folder)
    labels, loader = opened(objects), loader_of(folder, made.images)
    truth = walked(loader)
    for number, name in enumerate(shards_of(objects)):
        whole = objects[name]
        for bad in cuts(whole):
            objects[name] = bad
            noticed(labels, number, name, bad)
            (folder / name).write_bytes(bad)
            exact_or_error(loader, truth, name)
        objects[name] = whole
        (folder / name).write_bytes(whole)


def loaded(labels: Path, images: Path | None) -> list:
    """All that a new loader gives."""
    return walked(loader_of(labels, images))


def damaged(whole: bytes) -> Iterator[bytes]:
    """One bit of every byte changed, and the bytes cut at every seventh."""
    yield from (changed(whole, at, 1 << at % 8) for at in range(len(whole)))
    yield from (whole[:at] for at in range(0, len(whole), 7))


@pytest.mark.parametrize("name", ["plan", "slg.json"])
def test_every_flip_and_cut_of_plan_and_description_is_an_error(made, name):
    objects = objects_of(made.labels)
    for bad in damaged(objects[name]):
        objects[name] = bad
        with pytest.raises(SlgWdsError) as raised:
            opened(objects)
        assert raised.value.url in (f"memory/{name}", "memory/plan")


def test_every_flip_and_cut_of_an_index_part_is_an_error(made):
    objects = objects_of(made.labels)
    labels, name = opened(objects), "index/train-000001"
    for at, bad in enumerate(damaged(objects[name])):
        objects[name] = bad
        with pytest.raises(ManifestError) as raised:
            labels.index(1)
        assert raised.value.url == f"memory/{name}"
        if at % 9 == 0:
            problems = checked(labels, 1, objects["train-000001.tar"]).problems
            assert [problem.kind for problem in problems] == ["index"]


def test_the_loader_refuses_an_index_part_that_is_damaged(made, tmp_path):
    folder = copy_of(made.labels, tmp_path / "set")
    whole = (folder / "index" / "train-000001").read_bytes()
    for at in range(0, len(whole), 5):
        (folder / "index" / "train-000001").write_bytes(changed(whole, at, 1 << at % 8))
        with pytest.raises(ManifestError, match="train-000001"):
            loaded(folder, made.images)


@pytest.mark.filterwarnings("ignore:.*left out of the labels:UserWarning")  # as a damaged _info.json says
def test_an_info_file_never_makes_samples_fewer(made, tmp_path):
    folder = copy_of(made.labels, tmp_path / "set")
    whole, truth = (folder / "_info.json").read_bytes(), loaded(folder, made.images)
    refused = 0
    for at in range(len(whole)):
        (folder / "_info.json").write_bytes(changed(whole, at, 1 << at % 8))
        try:
            assert loaded(folder, made.images) == truth
        except SlgWdsError:
            refused += 1
    assert refused > len(whole) // 3
    (folder / "_info.json").write_bytes(
        whole.replace(b'"num_samples": 8', b'"num_samples": 7').replace(b"4\n", b"3\n", 1)
    )
    assert (folder / "_info.json").read_bytes() != whole
    assert [p.kind for p in verify(VerifyConfig(labels=str(folder), processes=1)).problems] == ["info"]
    with pytest.raises(ManifestError, match=r"its index has 4 samples, _info\.json 3"):
        loaded(folder, made.images)


def swapped(objects: trust_sets.Objects, a: str, b: str) -> None:
    objects[a], objects[b] = objects[b], objects[a]


@pytest.mark.parametrize("index_too", [False, True])
def test_shards_swapped_within_a_set(made, tmp_path, index_too):
    folder = copy_of(made.labels, tmp_path / "set")
    objects = objects_of(folder)
    labels = opened(objects)
    swapped(objects, "train-000000.tar", "train-000001.tar")
    if index_too:
        swapped(objects, "index/train-000000", "index/train-000001")
    for number in (0, 1):
        report = checked(labels, number, objects[f"train-00000{number}.tar"])
        assert "foreign" in {problem.kind for problem in report.problems}
        with pytest.raises(FormatError, match="another shard"):
            labels.shard(number)
    for name, data in objects.items():
        (folder / name).write_bytes(data)
    with pytest.raises(SlgWdsError) as raised:
        loaded(folder, made.images)
    assert raised.value.shard == "train-000000.tar"


@pytest.mark.parametrize("index_too", [False, True])
def test_a_shard_of_another_set_of_the_same_images(made, small_images, tmp_path, index_too):
    """Same plan, same keys, same boxes: only the labels are others."""
    other = trust_sets.make(small_images, tmp_path / "other", label_type="shared_tail_k3")
    folder = copy_of(made.labels, tmp_path / "set")
    objects, others = objects_of(folder), objects_of(other)
    assert objects["plan"] == others["plan"]
    labels = opened(objects)
    for name in ("train-000000.tar", *(["index/train-000000"] if index_too else [])):
        objects[name] = others[name]
        (folder / name).write_bytes(others[name])
    report = checked(labels, 0, objects["train-000000.tar"])
    assert report.problems[0].kind == "foreign" and "set digest" in report.problems[0].what
    with pytest.raises(FormatError, match="another shard: its set digest"):
        labels.shard(0)
    with pytest.raises(SlgWdsError) as raised:
        loaded(folder, made.images)
    assert raised.value.shard == "train-000000.tar"


def test_a_shard_that_is_gone_is_missed(made, tmp_path):
    folder = copy_of(made.labels, tmp_path / "set")
    (folder / "train-000001.tar").unlink()
    assert [p.kind for p in verify(VerifyConfig(labels=str(folder), processes=1)).problems] == ["missing"]
    with pytest.raises(IncompleteSetError, match="lacks 1 of 2 shards"):
        list(slg_wds.open_labels(str(folder)))
    with pytest.raises(SlgWdsError) as raised:
        loaded(folder, made.images)
    assert raised.value.shard == "train-000001.tar"
