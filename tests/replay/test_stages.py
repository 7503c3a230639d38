"""The stages in stock WebDataset pipelines with DataLoader workers."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path

import pytest
import torch
import webdataset

import slg_wds
from slg_wds.errors import ImageError, RecordError, RuleError, UsageError
from slg_wds.replay.mixed_stage import cut_shards
from slg_wds.replay.stages import CollateCrops, DecodeRecord, cut_crops, decode_record_stage
from support.sets.replay_sets import make, truth

# WebDataset leaves the last shard open for the collector to close.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file:ResourceWarning"
)


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()


@pytest.fixture(scope="module")
def embedded(photographs, tmp_path_factory):
    return make(photographs, tmp_path_factory.mktemp("sets") / "embedded", embed_images="original")


def pipeline(labels: str, decode: DecodeRecord | None = None):
    opened = slg_wds.open_labels(labels)
    tars = [f"{labels}/{opened.shard_name(number)}" for number in range(opened.num_shards)]
    data = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    return data.map(decode or decode_record_stage(labels=opened)).map(cut_crops(32, "bilinear"))


def through(labels: str, decode: DecodeRecord, **options):
    return torch.utils.data.DataLoader(
        pipeline(labels, decode), batch_size=6, collate_fn=CollateCrops(), **options
    )


def by_place(batches) -> dict[tuple[str, int], torch.Tensor]:
    """The distribution of each crop, by its key and number."""
    return {
        (batch.key[i], int(batch.crop[i])): row
        for batch in batches
        for i, row in enumerate(batch.labels.dense())
        if batch.mask[i]
    }


@pytest.mark.parametrize(
    ("workers", "start"), [(0, None), (2, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)]
)
def test_crops_are_those_of_the_loader(embedded, workers, start):
    expected = truth(embedded, None)
    loader = slg_wds.SoftLabelLoader(embedded, global_batch_size=12, crops_per_image=3, seed=5, last="pad")
    loader.set_epoch(2)
    wanted = {}
    for batch in loader:
        for key, crop, there in zip(batch.key, batch.crop.tolist(), batch.mask.tolist(), strict=True):
            if there:
                wanted.setdefault(key, []).append(crop)
    seen = {}
    decode = decode_record_stage(3, seed=5, epoch=2, labels=slg_wds.open_labels(embedded))
    for batch in through(embedded, decode, num_workers=workers, multiprocessing_context=start):
        assert batch.images.is_contiguous(memory_format=torch.channels_last) and batch.mask.all()
        dense = batch.labels.dense()
        for i, (key, crop) in enumerate(zip(batch.key, batch.crop.tolist(), strict=True)):
            seen.setdefault(key, []).append(crop)
            assert torch.equal(batch.images[i], expected[key, crop][0])
            torch.testing.assert_close(dense[i], expected[key, crop][1], atol=2e-6, rtol=0)
    assert seen == wanted and len(seen) == 36


def test_records_of_a_full_and_a_tailed_set_collate(photographs, tmp_path):
    for kind, options in {"full": {}, "shared_tail_k3": {"tail_classes": 6}}.items():
        labels = make(photographs, tmp_path / kind, label_type=kind, embed_images="original", **options)
        expected = truth(labels, None)
        for batch in torch.utils.data.DataLoader(pipeline(labels), 9, collate_fn=CollateCrops()):
            for row, place in zip(
                batch.labels.dense(), zip(batch.key, batch.crop.tolist(), strict=True), strict=True
            ):
                torch.testing.assert_close(row, expected[place][1], atol=2e-6, rtol=0)


KINDS = {
    "marginal_smoothing_k5": {},  # with a stored tail, which this type does not use
    "marginal_renorm_k4": {},
    "smoothing": {},
    "shared_tail_k4": {},
    "marginal_smoothing_k3": {"tail_classes": 0},
    "hard": {},
    "full": {},
    "lowrank": {},
    "shared_tail_k3": {"num_crops": 3},  # with no tail, which so few crops do not have
}


@pytest.mark.parametrize(
    "kind",
    [one if one == "marginal_renorm_k4" else pytest.param(one, marks=pytest.mark.slow) for one in KINDS],
)
def test_labels_are_those_of_the_loader(photographs, tmp_path, kind):
    """Of every label type, as they were made and at another temperature, without a word of either to a stage."""
    url = make(
        photographs, tmp_path / "set", embed_images="original", label_type=kind, temp=2.0, **KINDS[kind]
    )
    decode, collate = decode_record_stage(4, labels=slg_wds.open_labels(url)), CollateCrops()
    data = torch.utils.data.DataLoader(pipeline(url, decode), 9, collate_fn=collate)
    for temperature in (None, 3.0):
        collate.temperature = temperature
        found = by_place(data)
        wanted = by_place(
            slg_wds.SoftLabelLoader(url, global_batch_size=24, crops_per_image=4, temperature=temperature)
        )
        assert found.keys() == wanted.keys() and len(found) == 36 * min(4, KINDS[kind].get("num_crops", 4))
        for place, row in wanted.items():
            torch.testing.assert_close(found[place], row, atol=1e-6, rtol=0)


def test_records_alone_do_not_say_their_rule(embedded):
    samples = list(pipeline(embedded, decode_record_stage()))[:2]
    with pytest.raises(RuleError, match=r"several ways.*decode_record_stage\(labels=.*shared_tail_k5"):
        CollateCrops()(samples)
    one, other = (CollateCrops(rule)(samples).labels.dense() for rule in ("shared_tail_k5", "smoothing"))
    assert not torch.equal(one, other)


def test_a_set_that_lacks_crops_is_refused(embedded, photographs, tmp_path):
    more = make(photographs, tmp_path / "more", num_crops=14, extend=embedded, embed_images="original")
    with pytest.raises(UsageError, match="only the crops that the set it extends lacks"):
        decode_record_stage(labels=slg_wds.open_labels(more))


@pytest.mark.parametrize(
    ("workers", "persistent"), [(0, False), pytest.param(1, False, marks=pytest.mark.slow), (1, True)]
)
def test_every_epoch_has_the_crops_of_the_loader(embedded, workers, persistent):
    """Also of workers that live through all epochs, to which nothing is sent between them."""
    decode = decode_record_stage(2, labels=slg_wds.open_labels(embedded))
    data = through(embedded, decode, num_workers=workers, persistent_workers=persistent)
    loader = slg_wds.SoftLabelLoader(embedded, global_batch_size=24, crops_per_image=2)
    epochs = []
    for epoch in range(3):
        decode.epoch = epoch
        epochs.append(set(by_place(data)))
        assert epochs[-1] == set(by_place(loader))
    assert not epochs[0] & epochs[1], "4 of 12 crops"


@pytest.mark.slow
def test_persistent_workers_see_a_new_temperature(embedded):
    collate = CollateCrops(temperature=1.0)
    data = torch.utils.data.DataLoader(
        pipeline(embedded), 9, num_workers=1, persistent_workers=True, collate_fn=collate
    )
    loader = slg_wds.SoftLabelLoader(embedded, global_batch_size=24, temperature=lambda epoch: 1.0 + epoch)
    loader.set_epoch(0)
    first = by_place(data)
    collate.temperature = 2.0
    second = by_place(data)
    assert first.keys() == second.keys()
    for place, row in by_place(loader).items():
        torch.testing.assert_close(first[place], row, atol=1e-6, rtol=0)
        assert not torch.equal(first[place], second[place])


def test_what_is_missing_or_damaged_is_named(embedded, photographs, tmp_path):
    plain = make(photographs, tmp_path / "plain")
    with pytest.raises(ImageError, match=r"no image.*pass image="):
        next(iter(pipeline(plain)))
    with pytest.raises(RecordError, match="put this stage before"):
        decode_record_stage()({"__key__": "a/b", "jpg": b""})
    with pytest.raises(RecordError, match="not msgpack") as caught:
        decode_record_stage()({"__key__": "a/b", "slg.msgpack": b"\xc1", "__url__": "x.tar"})
    assert (caught.value.key, caught.value.url) == ("a/b", "x.tar")
    with pytest.raises(RuleError):
        CollateCrops("full")(list(pipeline(embedded))[:2])
    with pytest.raises(UsageError):
        cut_crops(0)
    with pytest.raises(UsageError):
        decode_record_stage(crops_per_image=0)
    with pytest.raises(UsageError, match="epoch -1"):
        decode_record_stage().epoch = -1


@pytest.mark.parametrize(
    ("given", "what"), [(None, "None"), (Path("a.jpg"), "a PosixPath"), (torch.zeros(3), "a Tensor")]
)
def test_a_function_that_gives_no_bytes_is_told_so(embedded, given, what):
    (sample,) = itertools.islice(pipeline(embedded), 1)
    with pytest.raises(ImageError, match=f"image= returned {what}, not the bytes of the image") as caught:
        cut_crops(32, image=lambda _: given)(sample)
    assert caught.value.key == sample["__key__"] and caught.value.url == sample["__url__"]
    cut = cut_crops(32, image=lambda sample: bytearray(sample["jpg"]))(sample)["images"]
    assert torch.equal(cut, cut_crops(32)(sample)["images"])
    with pytest.raises(UsageError, match=r"image= is 'a\.jpg', not a function"):
        cut_crops(32, image="a.jpg")


def test_a_stage_that_is_missing_before_another_is_named(embedded):
    opened = slg_wds.open_labels(embedded)
    raw = {"__key__": "a/b", "__url__": "x.tar", "jpg": b""}
    for stage in (
        cut_crops(32),
        lambda sample: CollateCrops()([sample]),
        lambda sample: list(cut_shards((), 32)([sample])),
    ):
        with pytest.raises(
            RecordError, match=r"no 'record' .*put the stage decode_record_stage before this one"
        ):
            stage(raw)
    record = next(iter(opened))
    with pytest.raises(RecordError, match=r"no 'images' .*put the stage cut_crops before this one"):
        CollateCrops()([{**raw, "record": record}])
    with pytest.raises(UsageError, match=r"no set that is open.*open_labels"):
        decode_record_stage(labels=embedded)


def test_images_may_come_from_elsewhere(photographs, tmp_path):
    plain = make(photographs, tmp_path / "plain")
    expected = truth(plain, str(photographs))
    opened = slg_wds.open_labels(plain)
    tars = [f"{plain}/{opened.shard_name(number)}" for number in range(opened.num_shards)]
    data = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).map(decode_record_stage())
    cutting = cut_crops(
        32, "bilinear", lambda sample: (photographs / "train" / sample["record"].path).read_bytes()
    )
    for sample in data.map(cutting):
        for i, crop in enumerate(sample["crop"].tolist()):
            assert torch.equal(sample["images"][i], expected[sample["__key__"], crop][0])
