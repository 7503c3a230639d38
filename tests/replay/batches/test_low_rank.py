"""Low-rank labels in the loader: what a whole record's distributions say of every crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.errors import RuleError
from slg_wds.labels import SoftCrossEntropy
from slg_wds.replay.stages import CollateCrops, decode_record_stage
from support.sets import dense_labels
from support.sets.dense_labels import DenseLabels, given
from support.sets.low_rank_sets import low_rank_of
from support.sets.replay_sets import NUM_CROPS, Made, comparable, make, write_class_map

RULES = ["hard", "smoothing", "marginal_smoothing_k4", "marginal_renorm_k2", "full", "lowrank"]


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lowrank")
    class_map = write_class_map(photographs, folder / "classes")
    options = {"label_type": "full", "embed_images": "original", "class_map": class_map}
    full = make(photographs, folder / "full", **options)
    urls = {
        "full": full,
        "lowrank": low_rank_of(full, str(folder / "lowrank")),
        "blocks": low_rank_of(full, str(folder / "blocks"), blocks=3),
        "at 2": low_rank_of(full, str(folder / "at2"), temperature=2.0),
    }
    return {name: Made(url, None) for name, url in urls.items()}


def loader(made: Made, **options) -> slg_wds.SoftLabelLoader:
    return made.loader(**{"crops_per_image": 6, "global_batch_size": 36, **options})


def stored(made: Made, rule=None, temperature=None) -> DenseLabels:
    return dense_labels.stored(made.labels, rule, temperature)


def agree(found: DenseLabels, wanted: DenseLabels, atol: float = 3e-6) -> None:
    dense_labels.agree(found, wanted, least=30, atol=atol)


@pytest.mark.parametrize("kind", ["lowrank", "blocks"])
@pytest.mark.parametrize("crops", [1, 6])
def test_every_crop_has_its_distribution(sets, kind, crops):
    wanted = stored(sets[kind])
    for batch in (batches := list(loader(sets[kind], crops_per_image=crops, global_batch_size=12 * crops))):
        assert batch.index.shape == batch.value.shape == (12 * crops, 0) and batch.tail is None
        logits = torch.randn(12 * crops, 20, generator=torch.manual_seed(0))
        dense = torch.stack([wanted[place] for place in zip(batch.key, batch.crop.tolist(), strict=True)])
        loss = -(dense.double() * logits.double().log_softmax(1)).sum(1).mean()
        assert float(SoftCrossEntropy()(logits, batch.labels)) == pytest.approx(float(loss), rel=1e-5)
    agree(given(batches), wanted)
    assert bool(batches[0].labels.tables) == (crops == 6), "tables only where they are smaller"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("temperature", [None, 4.0])
def test_every_rule_at_every_temperature_as_a_record_reads_it(sets, rule, temperature):
    made = sets["at 2"]
    wanted = stored(made, rule, temperature)
    # At 4, what a float32 near 1 leaves to the other classes shows its last digit.
    atol = 2e-4 if temperature and "smoothing" in rule else 3e-6
    agree(given(loader(made, rule=rule, temperature=temperature)), wanted, atol)
    labels = slg_wds.open_labels(made.labels)
    decode, collate = decode_record_stage(6), CollateCrops(rule, temperature, labels.temperature)
    data = [labels.record_bytes(0, position) for position in range(5)]
    batch = collate([decode({"slg.msgpack": one}) | {"images": torch.zeros(6, 3, 8, 8)} for one in data])
    assert batch.index.shape == (30, 0)
    agree(given([batch]), wanted, atol)


def test_a_rule_that_needs_a_tail_is_refused(sets):
    with pytest.raises(RuleError, match="shared_tail_k3"):
        loader(sets["lowrank"], rule="shared_tail_k3")


def test_ranks_threads_padding_and_devices_change_no_bit(sets):
    made = Made(sets["lowrank"].labels, None)
    options = {"crops_per_image": 4, "global_batch_size": 80, "last": "pad"}
    whole = comparable(made.loader(threads=1, **options))
    assert comparable(made.loader(threads=3, **options)) == whole
    parts = [comparable(made.loader(rank=rank, world_size=2, **options)) for rank in range(2)]
    assert [tuple(a + b for a, b in zip(*both, strict=True)) for both in zip(*parts, strict=True)] == whole
    on_device = given(made.loader(**options).to("cpu"))
    agree(on_device, given(made.loader(**options)), atol=0)
    for (_, probabilities), batch in zip(
        loader(sets["lowrank"]).pairs(), loader(sets["lowrank"]), strict=True
    ):
        assert torch.equal(probabilities, batch.labels.dense())


def test_sets_of_other_kinds_and_temperatures_are_averaged_with_it(sets):
    names, weights = ["lowrank", "at 2", "full"], [1, 2, 5]
    parts = [stored(sets[name], None, 3.0) for name in names]
    wanted = {
        place: sum(w / 8 * part[place] for w, part in zip(weights, parts, strict=True)) for place in parts[0]
    }
    several = Made([sets[name].labels for name in names], None)
    found = loader(several, temperature=3, weights=weights)
    agree(given(found), wanted)
    assert next(iter(found)).index.shape == (36, 20), "those of the full set"


@pytest.mark.parametrize("measure", ["confidence", "tail"])
@pytest.mark.parametrize("kind", ["lowrank", "blocks"])
def test_a_filter_measures_what_is_stored(sets, kind, measure):
    low, high = (0.2, 0.5) if measure == "confidence" else (0.02, 0.2)
    kept = set()
    for record in slg_wds.open_labels(sets[kind].labels):
        for crop, row in enumerate(record.distribution().astype(np.float64)):
            classes = record.low_rank.blocks[record.low_rank.block_of[crop]].classes
            value = row.max() if measure == "confidence" else 1 - row[classes].sum()
            kept |= {(record.key, crop)} if low <= value <= high else set()
    assert 20 < len(kept) < 36 * NUM_CROPS - 20
    filtered = loader(sets[kind], crop_filter=(measure, low, high), crops_per_image=1, global_batch_size=4)
    found = set()
    for _ in range(NUM_CROPS):
        found |= set(given(filtered))
    assert found <= kept and len(found) > 0.8 * len(kept)
    assert {key for key, _ in kept} == {key for key, _ in found}


def test_adaptation_goes_by_the_largest_probability_as_stored(sets):
    below, smoothing, share = 0.4, 0.2, 0.7
    now, then = stored(sets["at 2"], None, 8.0), stored(sets["at 2"])
    target = {record.key: record.target for record in slg_wds.open_labels(sets["at 2"].labels)}
    wanted, changed = {}, 0
    for place, row in now.items():
        hard = torch.full((20,), smoothing / 20)
        hard[target[place[0]]] += 1 - smoothing
        low = bool(then[place].max() < below)
        wanted[place], changed = ((1 - share) * row + share * hard if low else row), changed + low
    assert 20 < changed < len(now) - 20
    agree(given(loader(sets["at 2"], temperature=8, label_adaptation=(below, smoothing, share))), wanted)


def test_a_set_and_one_that_extends_it_are_one(sets, photographs, tmp_path):
    full = sets["full"].labels
    base = low_rank_of(full, str(tmp_path / "base"), blocks=2)
    digest = slg_wds.open_labels(base).digest
    extended = {"num_crops": NUM_CROPS + 4, "extends": {"digest": digest, "first_crop": NUM_CROPS}}
    options = {"label_type": "full", "num_crops": NUM_CROPS + 4, "embed_images": "original"}
    more = make(photographs, tmp_path / "more", **options, class_map=str(Path(full).parent / "classes"))
    new = low_rank_of(more, str(tmp_path / "new"), first=NUM_CROPS, requires=("extends",), **extended)
    both = Made([base, new], None)
    wanted = stored(Made(base, None))
    wanted |= {
        (record.key, NUM_CROPS + crop): torch.from_numpy(row)
        for record in slg_wds.open_labels(new)
        for crop, row in enumerate(record.distribution())
    }
    found = {}
    walk = loader(both, crops_per_image=8, global_batch_size=48)
    for _ in range(2):
        found |= given(walk)
    assert len(found) == 36 * 16
    agree(found, wanted)
