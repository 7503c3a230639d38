"""Every record is held against what its set says of all: the plan and slg.json. All checksums are right here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import slg_wds
from slg_wds.format.records.record import Record
from slg_wds.verification.problems import DAMAGED
from support.format.resealing import members_of, of_records, resealed, samples_of, tar_of
from support.sets import trust_sets
from support.sets.trust_sets import CROPS, checked, objects_of, opened


@pytest.fixture(scope="module")
def sets(small_images, tmp_path_factory) -> dict[str, Path]:
    """One small set of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    kinds: dict[str, dict[str, Any]] = {
        "top": {},
        "lowrank": {"label_type": "lowrank", "max_kl": 0.1},
        "embeddings": {
            "label_type": slg_wds.GenerateConfig.label_type,
            "output": "embedding",
            "min_cosine": 0.99,
        },
        "mixed": {"mixup": 1.0},
    }
    return {name: trust_sets.make(small_images, folder / name, **options) for name, options in kinds.items()}


def told(labels: Path, change: Callable[[Record], Record]) -> list[str]:
    """What verify says of the first shard when its first record is changed."""
    found = members_of((labels / "train-000000.tar").read_bytes())
    at = next(at for at, (name, _) in enumerate(found) if name.endswith(".slg.msgpack"))
    found[at] = (found[at][0], of_records(change)(*found[at]))
    data = tar_of(resealed(found, len(samples_of(found))))
    report = checked(opened(objects_of(labels)), 0, data)
    return [
        problem.what for problem in report.problems if problem.kind == DAMAGED
    ]  # the index part differs too


def shorter(record: Record) -> Record:
    return replace(
        record, crops=record.crops[1:], flips=record.flips[1:], index=record.index[1:], value=record.value[1:]
    )


def of_fewer_classes(record: Record) -> Record:
    return replace(record, index=record.index[:, :4], value=record.value[:, :4])


def worse(record: Record) -> Record:
    """A record that says that its labels are further off than the set allows."""
    return replace(
        record, low_rank=replace(record.low_rank, kl=replace(record.low_rank.kl, mean=0.11, worst=0.5))
    )


def less_alike(record: Record, mean: float, worst: float) -> Record:
    ((name, one),) = record.embeddings.items()
    return replace(
        record, embeddings={name: replace(one, cosine=replace(one.cosine, mean=mean, worst=worst))}
    )


CHANGES = [
    ("top", lambda r: replace(r, path="n/other.jpg"), "its path is 'n/other.jpg', where"),
    ("top", lambda r: replace(r, target=r.target + 1), "its target is"),
    ("top", lambda r: replace(r, target=None), "its target is None, where"),
    ("top", lambda r: replace(r, coding="float32"), "its coding is 'float32', where 'float16' belongs"),
    ("top", lambda r: replace(r, num_classes=21), "its num_classes is 21, where 20 belongs"),
    ("top", of_fewer_classes, "its k is 4, where 5 belongs"),
    ("top", shorter, f"it has {CROPS - 1} crops, where {CROPS} belong"),
    (
        "top",
        lambda r: replace(r, image_crc32=None),
        "it has no checksum of its image, where slg.json says that all",
    ),
    ("lowrank", worse, "its mean KL is 0.11, above 0.1"),
    ("embeddings", lambda r: less_alike(r, 0.98, 0.98), "its mean cosine is 0.98, below 0.99"),
    ("embeddings", lambda r: less_alike(r, 0.99, 0.5), "its least cosine is 0.5, below"),
    ("mixed", lambda r: replace(r, views=None), "it lacks the field mixing, unlike what slg.json requires"),
]


@pytest.mark.parametrize(("kind", "change", "said"), CHANGES, ids=[said for _, _, said in CHANGES])
def test_a_record_that_is_not_as_its_set_says(sets, kind, change, said):
    (problem,) = told(sets[kind], change)
    assert problem.startswith(said)


@pytest.mark.parametrize("kind", ["top", "lowrank", "embeddings", "mixed"])
def test_records_as_they_were_made_are_well(sets, kind):
    assert told(sets[kind], lambda record: record) == []
