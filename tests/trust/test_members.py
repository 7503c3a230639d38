"""Members removed, doubled, moved and renamed, with the old trailer or with one that was corrected to match."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from slg_wds.errors import SlgWdsError
from slg_wds.format.manifest.index import build_index, encode_index
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.shards.shard import Shard, read_shard
from support.format.resealing import Members, members_of, resealed, samples_of, tar_of
from support.sets.trust_sets import checked, copy_of, loader_of, objects_of, opened, walked


def together(groups: list[Members], found: Members) -> Members:
    return [*(member for group in groups for member in group), found[-1]]


def doubled(found: Members) -> Members:
    first, *rest = samples_of(found)
    return together([first, first, *rest], found)


def doubled_at_the_end(found: Members) -> Members:
    groups = samples_of(found)
    return together([*groups, groups[0]], found)


def taken_out(found: Members) -> Members:
    return together(samples_of(found)[1:], found)


def moved(found: Members) -> Members:
    first, second, *rest = samples_of(found)
    return together([second, first, *rest], found)


def renamed(found: Members) -> Members:
    first, *rest = samples_of(found)
    return together([[(f"x{name}", content) for name, content in first], *rest], found)


def names_exchanged(found: Members) -> Members:
    first, second, *rest = samples_of(found)
    pairs = list(zip(first, second, strict=True))
    return together(
        [[(a, y) for (a, _), (_, y) in pairs], [(b, x) for (_, x), (b, _) in pairs], *rest], found
    )


def records_exchanged(found: Members) -> Members:
    """Each record tells the other's key, so only the images, boxes and labels are the wrong ones."""
    first, second, *rest = samples_of(found)
    (_, a), (_, b) = first[-1], second[-1]
    a, b = decode_record(a), decode_record(b)
    for group, key, record in ((first, a, b), (second, b, a)):
        mine = dataclasses.replace(record, key=key.key, path=key.path)
        group[-1] = (group[-1][0], encode_record(mine))
    return together([first, second, *rest], found)


CHANGES = [doubled, doubled_at_the_end, taken_out, moved, renamed, names_exchanged]


def refused(made, tmp_path, bad: bytes, index: bytes | None) -> None:
    """verify and open_labels name the shard; the loader does, or finds by the index all that was there."""
    folder = copy_of(made.labels, tmp_path / "set")
    truth, objects = walked(loader_of(folder, made.images)), objects_of(folder)
    labels = opened(objects)
    objects["train-000000.tar"] = bad
    (folder / "train-000000.tar").write_bytes(bad)
    if index is not None:
        (folder / "index" / "train-000000").write_bytes(index)
        objects["index/train-000000"] = index
    report = checked(labels, 0, bad)
    assert report.problems and report.problems[0].kind in ("damaged", "foreign")
    with pytest.raises(SlgWdsError) as raised:
        list(labels.shard(0))
    assert raised.value.shard is not None and raised.value.shard.startswith("train-000000")
    exact = False
    try:
        exact = walked(loader_of(folder, made.images)) == truth
    except SlgWdsError as error:
        assert error.shard == "train-000000.tar"
    else:
        assert exact
    assert not (exact and index is not None)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("sealed", [False, True])
def test_changed_members_are_refused(made, tmp_path, change: Callable[[Members], Members], sealed):
    found = members_of((made.labels / "train-000000.tar").read_bytes())
    bad = change(found)
    if sealed:
        bad = resealed(bad, len(samples_of(bad)))
    refused(made, tmp_path, tar_of(bad), None)


@pytest.mark.parametrize("change", [moved, taken_out, names_exchanged])
def test_changed_members_with_an_index_to_fit_are_refused(made, tmp_path, change):
    """Whoever changes the shard may write its index part too; the plan still says what belongs there."""
    labels = opened(objects_of(made.labels))
    found = members_of((made.labels / "train-000000.tar").read_bytes())
    bad = change(found)
    bad = tar_of(resealed(bad, len(samples_of(bad))))
    shard = read_shard(bad)
    keys = [sample.key for sample in shard.samples]
    plan = labels.plan.shard(0)
    fits = dataclasses.replace(build_index(labels.shard(0), labels.plan, 0), **index_of(shard))
    assert change is names_exchanged or keys != plan.keys
    refused(made, tmp_path, bad, encode_index(fits))


def index_of(shard: Shard) -> dict[str, object]:
    images = [[s.image.offset, s.image.size, s.image_crc32] for s in shard.samples if s.image]
    return {
        "records": [[s.record.offset, s.record.size, s.record_crc32] for s in shard.samples],
        "images": images or None,
    }


def test_what_no_checksum_can_tell(made):
    """Whoever rewrites shard and index alike makes another set; verify still sees that its boxes do not fit."""
    found = records_exchanged(members_of((made.labels / "train-000000.tar").read_bytes()))
    bad = tar_of(resealed(found, len(samples_of(found))))
    labels = opened(objects_of(made.labels))
    assert len(read_shard(bad)) == 4
    assert checked(labels, 0, bad).problems
