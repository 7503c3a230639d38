"""Labels at another temperature from a loader: against sets that the teacher made at that temperature."""

from __future__ import annotations

import json
import re
import shutil
import warnings

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.config.shared import RecheckOptions
from slg_wds.errors import IdentityMismatchError, ReplayError, UsageError
from slg_wds.replay.stages import CollateCrops, decode_record_stage
from slg_wds.verification.answers.asking import Question, load_named_teachers
from support.sets import dense_labels
from support.sets.dense_labels import DenseLabels, given
from support.sets.made_sets import label_set
from support.sets.replay_sets import Made, make, write_class_map

WANTED = 4.0


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tempered")
    class_map = write_class_map(photographs, folder / "classes")
    kinds = {
        "full at 1": {"label_type": "full", "values": "float32"},
        "full at 2": {"label_type": "full", "values": "float32", "temp": 2.0},
        "full at 4": {"label_type": "full", "values": "float32", "temp": WANTED},
        "tail at 2": {"label_type": "shared_tail_k3", "tail_classes": 6, "temp": 2.0},
        "hard": {"label_type": "hard"},
    }
    return {
        name: Made(
            make(photographs, folder / name.replace(" ", "-"), class_map=class_map, **options),
            str(photographs),
        )
        for name, options in kinds.items()
    }


def stored(made: Made, rule=None, temperature=None) -> DenseLabels:
    return dense_labels.stored(made.labels, rule, temperature)


def agree(found: DenseLabels, wanted: DenseLabels, atol: float = 3e-6) -> None:
    dense_labels.agree(found, wanted, least=60, atol=atol)


@pytest.mark.parametrize("kind", ["full at 1", "full at 2", "full at 4"])
def test_labels_are_those_that_the_teacher_gives_at_that_temperature(sets, kind):
    wanted = stored(sets["full at 4"])
    agree(given(sets[kind].loader(temperature=WANTED)), wanted)
    agree(stored(sets[kind], temperature=WANTED), wanted)
    far = given(sets["full at 1"].loader())
    assert max(float((row - wanted[place]).abs().max()) for place, row in far.items()) > 0.1


def test_several_sets_are_each_brought_to_it_before_they_are_averaged(sets):
    urls = [sets["full at 1"].labels, sets["full at 2"].labels]
    both = Made(urls, sets["full at 1"].images)
    agree(given(both.loader(temperature=WANTED)), stored(sets["full at 4"]))
    with pytest.raises(IdentityMismatchError, match=r"temperature: 1\.0 != 2\.0"):
        both.loader()
    one, other = stored(sets["full at 1"], None, WANTED), stored(sets["tail at 2"], "shared_tail_k3", WANTED)
    mixed = Made([urls[0], sets["tail at 2"].labels], both.images).loader(temperature=WANTED, weights=[1, 3])
    agree(given(mixed), {place: 0.25 * one[place] + 0.75 * other[place] for place in one})


@pytest.mark.parametrize("rule", ["shared_tail_k3", "marginal_smoothing_k2", "marginal_renorm", "hard"])
def test_every_rule_and_the_stages_read_as_a_record_does(sets, rule):
    made = sets["tail at 2"]
    wanted = stored(made, rule, WANTED)
    agree(given(made.loader(rule=rule, temperature=WANTED)), wanted)
    labels = slg_wds.open_labels(made.labels)
    decode, collate = decode_record_stage(3), CollateCrops(rule, WANTED, labels.temperature)
    data = [labels.record_bytes(0, position) for position in range(4)]
    samples = [
        decode({"slg.msgpack": one}) | {"images": torch.zeros(3, 3, 8, 8, dtype=torch.uint8)} for one in data
    ]
    batch = collate(samples)
    for row, place in zip(
        batch.labels.dense(), zip(batch.key, batch.crop.tolist(), strict=True), strict=True
    ):
        torch.testing.assert_close(row, wanted[place], atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="need the one that they were made at"):
        CollateCrops(rule, WANTED)(samples)


def test_hard_labels_are_the_same_at_every_temperature(sets):
    agree(given(sets["hard"].loader(temperature=WANTED)), stored(sets["hard"]), atol=0)


def test_a_function_gives_each_epoch_its_own(sets):
    loader = sets["full at 1"].loader(temperature=lambda epoch: 1.0 + epoch)
    for temperature in (1.0, 2.0, 3.0):
        agree(given(loader), stored(sets["full at 1"], None, temperature), atol=1e-6)
    loader.set_epoch(3)
    agree(given(loader), stored(sets["full at 4"]))
    with pytest.raises(UsageError, match="temperature of labels in epoch 2 must be above 0, not 0"):
        list(sets["full at 1"].loader(temperature=lambda epoch: 2 - epoch, seed=1).batches(2, 0))
    with pytest.raises(UsageError, match="temperature of labels in epoch 0 must be above 0, not hot"):
        sets["full at 1"].loader(temperature="hot")


def test_filter_and_adaptation_measure_labels_as_they_were_made(sets):
    made = sets["full at 1"]
    options = {"crop_filter": ("confidence", 0.2, 0.6), "global_batch_size": 12}
    plain, hot = made.loader(**options), made.loader(temperature=WANTED, **options)
    assert plain.num_samples == hot.num_samples and plain.fingerprint == hot.fingerprint
    assert list(given(plain)) == list(given(hot))
    below, smoothing, share = 0.4, 0.1, 0.7
    adapted = given(made.loader(temperature=WANTED, label_adaptation=(below, smoothing, share)))
    now, then = stored(made, None, WANTED), stored(made)
    target = {record.key: record.target for record in slg_wds.open_labels(made.labels)}
    changed = 0
    for place, row in adapted.items():
        wanted = now[place]
        if then[place].max() < below:
            hard = torch.full_like(wanted, smoothing / len(wanted))
            hard[target[place[0]]] += 1 - smoothing
            wanted, changed = (1 - share) * wanted + share * hard, changed + 1
        torch.testing.assert_close(row, wanted, atol=1e-6, rtol=0)
    assert 5 < changed < len(adapted) - 5


def test_a_state_is_not_resumed_at_another_temperature(sets):
    made = sets["full at 1"]
    annealed = made.loader(temperature=lambda epoch: 4.0 - epoch)
    batches = iter(annealed)
    next(batches)
    state = json.loads(json.dumps(annealed.state_dict()))
    batches.close()
    assert state["temperature"] == 4.0
    for same in (4, lambda epoch: 4.0 - epoch, lambda epoch: 4.0 * np.exp(-0.5 * epoch) * (1 + 1e-15)):
        loader = made.loader(temperature=same)
        loader.load_state_dict(state)
        assert len(list(loader)) == len(loader) - 1
    with pytest.raises(ReplayError, match=r"labels at temperature 4\.0, and here that epoch has them at"):
        made.loader(temperature=2).load_state_dict(state)
    with pytest.raises(ReplayError, match="here that epoch has them as they were made; resume with the same"):
        made.loader().load_state_dict(state)
    plain = made.loader().state_dict()
    assert "temperature" not in plain, "states of loaders without a temperature stay what they were"
    with pytest.raises(ReplayError, match="labels as they were made, and here"):
        made.loader(temperature=4).load_state_dict(plain)


class Mean:
    """Makes sets of the same made-up crops, and their mean in both ways: by `ensemble` and by the loader."""

    def __init__(self, folder, photograph):
        self.folder = folder
        for number in range(10):
            path = folder / "images" / "class" / f"image{number:02d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photograph, path)

    def made(self, name: str, temperature: float | None) -> str:
        return label_set(self.folder / name, len(name), identity={"temperature": temperature}).url

    def merged(self, *sets: str):
        save_path = str(self.folder / f"mean of {len(list(self.folder.iterdir()))}")
        return slg_wds.ensemble(slg_wds.EnsembleConfig(sets=sets, save_path=save_path, processes=1)).labels

    def loaded(self, *sets: str, **more):
        about = {"global_batch_size": 4, "size": 32, "interpolation": "bilinear", **more}
        return slg_wds.SoftLabelLoader(list(sets), str(self.folder / "images"), **about)


@pytest.fixture
def mean(tmp_path, photographs):
    return Mean(tmp_path, min((photographs / "train").rglob("*.jpg")))


def test_a_mean_with_an_unknown_temperature_has_none_and_ensemble_and_loader_say_so(mean):
    unknown, hot, cold = mean.made("unknown", None), mean.made("hot", 4.0), mean.made("cold", 1.0)
    said = f"{re.escape(unknown)} do not say their temperature, and those of {re.escape(hot)} were made at 4"
    for sets in ((unknown, hot), (hot, unknown)):
        with pytest.warns(UserWarning, match=said):
            assert mean.merged(*sets).identity["temperature"] is None
        with pytest.warns(UserWarning, match=said):
            mean.loaded(*sets)
    for averaged in (mean.merged, mean.loaded):
        with pytest.raises(IdentityMismatchError, match=r"temperature: 4\.0 != 1\.0"):
            averaged(unknown, hot, cold)  # the first does not say it
    with pytest.warns(UserWarning) as caught:
        mean.loaded(unknown, hot, temperature=2.0)
    assert [str(one.message) for one in caught] == [
        f"the labels {unknown} do not say their temperature; it is taken as 1 (slg-wds import --temp notes it in the "
        "set)"
    ]


def test_every_set_of_unknown_temperature_is_named(mean):
    unknown, other, third = (mean.made(name, None) for name in ("unknown", "also unknown", "unknown as well"))
    hot, warm = mean.made("hot", 4.0), mean.made("hot too", 4.0)
    lacking, neither = f"the labels {unknown} do not say their temperature", f"neither do those of {other}"
    of_hot = f"and those of {hot} were made at 4; their mean is right only if all"
    for sets, sentence in {
        (unknown, other): f"{lacking}, and {neither}; their mean is right only if both",
        (unknown, other, third): f"{lacking}, and {neither} and {third}; their mean is right only if all",
        (unknown, hot, warm): f"{lacking}, {of_hot}",
        (unknown, hot, other): f"{lacking}, {neither}, {of_hot}",
    }.items():
        with pytest.warns(UserWarning, match=re.escape(sentence)):
            mean.loaded(*sets)
    with pytest.warns(UserWarning, match=re.escape(neither)):
        assert mean.merged(unknown, other).identity["temperature"] is None


def test_where_no_temperature_can_differ_nothing_is_said(mean):
    unknown, hot, as_hot = mean.made("unknown", None), mean.made("hot", 4.0), mean.made("as hot", 4.0)
    hard = label_set(
        mean.folder / "hard", 9, label_type="hard", coding="none", identity={"temperature": None}
    ).url
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean.loaded(unknown, hard, rule="hard", weights=(1, 3))  # one of a kind has nobody to differ from
        assert mean.merged(hot, as_hot).identity["temperature"] == 4.0
        assert mean.merged(unknown).identity["temperature"] is None


def test_teachers_are_not_compared_with_labels_of_unknown_temperature(mean):
    labels = slg_wds.open_labels(mean.made("unknown", None))
    with pytest.raises(UsageError, match="do not say their temperature, so they cannot be compared"):
        load_named_teachers(Question(RecheckOptions(arch="resnet18"), None), labels)
