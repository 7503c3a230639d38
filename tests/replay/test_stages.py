"""The stages in stock WebDataset pipelines with DataLoader workers."""

from __future__ import annotations

import gc

import pytest
import torch
import webdataset

import slg_wds
from slg_wds.errors import ImageError, RecordError, RuleError, UsageError
from slg_wds.replay.stages import CollateCrops, cut_crops, decode_record_stage
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


def pipeline(labels: str, **options):
    opened = slg_wds.open_labels(labels)
    tars = [f"{labels}/{opened.shard_name(number)}" for number in range(opened.num_shards)]
    data = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    return data.map(decode_record_stage(**options)).map(cut_crops(32, "bilinear"))


def through(labels: str, workers: int, start: str | None = None, **options):
    return torch.utils.data.DataLoader(
        pipeline(labels, **options),
        batch_size=6,
        num_workers=workers,
        collate_fn=CollateCrops("marginal_smoothing_k5"),
        multiprocessing_context=start,
    )


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
    for batch in through(embedded, workers, start, crops_per_image=3, seed=5, epoch=2):
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
        for batch in torch.utils.data.DataLoader(pipeline(labels), 9, collate_fn=CollateCrops(kind)):
            for row, place in zip(
                batch.labels.dense(), zip(batch.key, batch.crop.tolist(), strict=True), strict=True
            ):
                torch.testing.assert_close(row, expected[place][1], atol=2e-6, rtol=0)


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
