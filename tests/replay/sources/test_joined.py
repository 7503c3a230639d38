"""A set and the sets that extend it, read as one: exactly the batches of a set made in one run."""

from __future__ import annotations

import shutil

import pytest
import torch

import slg_wds
from slg_wds.errors import ChecksumError, IncompleteSetError, ReplayError, UsageError
from slg_wds.store import open_store
from support.sets.replay_sets import comparable, make, truth

LABELS = {"label_type": "shared_tail_k3", "tail_classes": 6}


@pytest.fixture(scope="module")
def few(photographs, tmp_path_factory):
    """Half of the photographs, in a folder of the same layout."""
    folder = tmp_path_factory.mktemp("few")
    shutil.copytree(photographs / "train", folder / "train")
    for path in sorted((folder / "train").rglob("*.jpg"))[1::2]:
        path.unlink()
    return folder


@pytest.fixture(scope="module")
def sets(photographs, few, tmp_path_factory):
    """Names of sets -> where they are: old has 12 crops, new 20, more 31; grown extends half with all images."""
    folder = tmp_path_factory.mktemp("joined")
    exact = {**LABELS, "extendable": True}
    made = {
        "old": make(photographs, folder / "old", **exact),
        "half": make(few, folder / "half", **exact),
        "plain": make(photographs, folder / "plain", **LABELS),
        "full": make(photographs, folder / "full", label_type="full"),
    }
    made |= {
        "new": make(photographs, folder / "new", num_crops=20, extend=made["old"], **exact),
        "grown": make(photographs, folder / "grown", num_crops=20, extend=made["half"], **exact),
        "plainer": make(photographs, folder / "plainer", num_crops=20, extend=made["plain"], **LABELS),
        "fuller": make(photographs, folder / "fuller", num_crops=20, extend=made["full"], label_type="full"),
        "whole": make(photographs, folder / "whole", num_crops=20, **exact),
        "wholefull": make(photographs, folder / "wholefull", num_crops=20, label_type="full"),
    }
    made["more"] = make(photographs, folder / "more", num_crops=31, extend=made["new"], **exact)
    made["wholemore"] = make(photographs, folder / "wholemore", num_crops=31, **exact)
    return made


@pytest.fixture
def loader(photographs, sets):
    def loader(*names, **options):
        defaults = {"global_batch_size": 24, "crops_per_image": 4, "threads": 2, "last": "pad"}
        urls = [sets.get(name, name) for name in names]
        return slg_wds.SoftLabelLoader(urls, str(photographs), **{**defaults, **options})

    return loader


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (("old", "new"), "whole"),
        (("new", "old"), "whole"),  # in any order
        (("half", "grown"), "whole"),  # with images that the old one has not, in other shards
        (("old", "more", "new"), "wholemore"),
        (("full", "fuller"), "wholefull"),
    ],
)
def test_joined_batches_are_those_of_one_go_in_the_same_order(loader, parts, whole):
    joined, one = loader(*parts), loader(whole)
    assert joined.fingerprint == one.fingerprint
    for _ in range(3):
        for mine, theirs in zip(joined, one, strict=True):
            assert comparable([mine]) == comparable([theirs])
            assert torch.equal(mine.index, theirs.index) and torch.equal(mine.value, theirs.value)
            if mine.tail is not None:
                pairs = zip(vars(mine.tail).values(), vars(theirs.tail).values(), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs if torch.is_tensor(a))


def test_a_state_goes_on_from_the_one_set_to_the_joined(loader):
    one = loader("whole")
    iterator = iter(one)
    head = comparable([next(iterator) for _ in range(2)])
    joined = loader("half", "grown")
    joined.load_state_dict(one.state_dict())
    iterator.close()
    assert head + comparable(joined) == comparable(loader("whole"))


def test_without_sums_the_tails_are_those_that_ensemble_makes(loader, sets, photographs, tmp_path):
    merged = str(tmp_path / "merged")
    config = slg_wds.EnsembleConfig(sets=(sets["plain"], sets["plainer"]), save_path=merged, processes=1)
    slg_wds.ensemble(config)
    expected, seen = truth(merged, str(photographs)), set()
    for _ in range(2):
        for batch in loader("plain", "plainer"):
            dense = batch.labels.dense()
            for i in torch.nonzero(batch.mask)[:, 0].tolist():
                pixels, label = expected[batch.key[i], int(batch.crop[i])]
                assert torch.equal(batch.images[i], pixels)
                torch.testing.assert_close(dense[i], label, atol=2e-6, rtol=0)
                seen.add(int(batch.crop[i]))
    assert seen == set(range(20))


def test_a_filter_and_an_average_take_the_joined_set_for_one(loader):
    chosen = {"crop_filter": ("confidence", 0.3, 0.9), "global_batch_size": 8}
    assert comparable(loader("half", "grown", **chosen)) == comparable(loader("whole", **chosen))
    averaged = {"weights": [1, 3], "global_batch_size": 24}
    pairs = zip(loader("old", "new", "plain", **averaged), loader("whole", "plain", **averaged), strict=True)
    for mine, theirs in pairs:
        assert set(mine.crop.tolist()) <= set(range(12))  # of which both have labels
        own = dict(
            zip(zip(theirs.key, theirs.crop.tolist(), strict=True), theirs.labels.dense(), strict=True)
        )
        for key, crop, row in zip(mine.key, mine.crop.tolist(), mine.labels.dense(), strict=True):
            if (key, crop) in own:
                assert torch.equal(row, own[key, crop])


def test_alone_or_with_a_stranger_it_is_refused(loader, sets):
    with pytest.raises(
        UsageError,
        match=r"new extends another label set, which must be given too.*give both: \[\"OLD\", \"NEW\"\]",
    ):
        loader("new")
    with pytest.raises(UsageError, match="new extends another label set"):
        loader("plain", "new")
    with pytest.raises(ReplayError, match="its plan is not that of"):
        loader("half", "whole")


def test_an_unfinished_old_set_is_refused_even_where_unfinished_ones_are_allowed(loader, sets, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(sets["old"], old)
    (old / "_info.json").unlink()
    (old / "train-000003.tar").unlink()
    with pytest.raises(IncompleteSetError, match=r"lacks 1 of 8 shards, and .*new extends it") as caught:
        loader(str(old), "new", allow_incomplete=True)
    assert caught.value.url == str(old)


@pytest.mark.parametrize("pair", [("old", "new"), ("half", "grown")])
def test_damage_in_the_old_set_is_named(loader, sets, tmp_path, pair):
    old = tmp_path / "old"
    shutil.copytree(sets[pair[0]], old)
    labels = slg_wds.open_labels(str(old))
    offset, size, _ = labels.index(1).records[2]
    path = old / labels.shard_name(1)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[offset + size // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError) as caught:
        for _ in range(3):
            list(loader(str(old), pair[1]))
    assert (caught.value.url, caught.value.shard) == (str(old), "train-000001.tar")
    assert caught.value.key == labels.plan.shard(1).keys[2]


@pytest.mark.parametrize("pair", [("old", "new"), ("half", "grown")])
def test_remote_ones_too_cached_where_both_have_one_plan(loader, sets, s3_server, s3_url, tmp_path, pair):
    for name in pair:
        source, store = open_store(sets[name]), open_store(f"{s3_url}/{name}", s3_server.options())
        for entry in source.list():
            store.create(entry.name, source.read(entry.name))
    remote = loader(
        *(f"{s3_url}/{name}" for name in pair),
        store_options=s3_server.options(), cache_dir=str(tmp_path), global_batch_size=24, lanes=2,
    )  # fmt: skip
    local = loader("whole", lanes=2)
    assert [comparable(remote), comparable(remote)] == [comparable(local), comparable(local)]
