"""Mixed views in the loader and the stages: the very pixels, both targets and their weight."""

from __future__ import annotations

import io
import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image, ImageOps

import slg_wds
from slg_wds import errors
from slg_wds.format.shards.shard import Sample
from slg_wds.labels import LabelAdaptation
from slg_wds.labels.adaptation import adapted
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.publishing import commit_shard, finish_set
from slg_wds.replay.mixed_stage import cut_shards
from slg_wds.replay.stages import CollateCrops, cut_crops, decode_record_stage
from slg_wds.store import Location
from support.sets.mixed_sets import check_mixed, mixed_of, mixed_truth
from support.sets.replay_sets import Made, comparable, make, pack, upload, write_class_map

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file:ResourceWarning"
)

VIEWS = {"aa": "rand-m9-mstd0.5-inc1", "reprob": 0.25}
OPTIONS = {"label_type": "full", "num_crops": 6}


def labelled(photographs, folder, name: str, **options) -> str:
    map_of = write_class_map(photographs, folder / f"{name}.classes")
    return make(photographs, folder / name, class_map=map_of, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mixing")


@pytest.fixture(scope="module")
def sets(photographs, folder) -> dict[str, Made]:
    """Embedded images with views, in one shard or several; a folder; tars."""
    embedded = labelled(photographs, folder, "plain", embed_images="original", **VIEWS)
    tars = pack(photographs, folder / "tars")
    of_tars = make(tars, folder / "of_tars", **OPTIONS)
    return {
        "embedded": Made(mixed_of(embedded, str(folder / "embedded")), None),
        "anywhere": Made(mixed_of(embedded, str(folder / "anywhere"), anywhere=True), None),
        "folder": Made(
            mixed_of(labelled(photographs, folder, "boxes"), str(folder / "folder")), str(photographs)
        ),
        "tars": Made(mixed_of(of_tars, str(folder / "tarlabels"), anywhere=True), str(tars)),
    }


@pytest.fixture(scope="module")
def truths(sets):
    return {name: mixed_truth(made.labels, made.images) for name, made in sets.items()}


@pytest.mark.parametrize("place", ["embedded", "anywhere", "folder", "tars"])
@pytest.mark.parametrize(("crops", "threads"), [(1, 3), (6, 1), (6, 3)])
def test_views_are_mixed_as_recorded(sets, truths, place, crops, threads):
    loader = sets[place].loader(
        crops_per_image=crops, global_batch_size=10 * crops, threads=threads, last="pad"
    )
    seen = check_mixed(itertools.chain.from_iterable(loader for _ in range(6 // crops)), truths[place])
    assert len(seen) == 36 * 6
    lam = np.array([one.lam for one in truths[place].values()])
    assert 0.2 < (lam < 1).mean() < 0.9 and len(np.unique(lam)) > 40


def test_students_of_another_size_see_the_same_mix(sets):
    truth = mixed_truth(sets["embedded"].labels, size=45)
    assert len(check_mixed(sets["embedded"].loader(size=45, crops_per_image=6), truth)) == 36 * 6


def everything(batches) -> list[tuple]:
    batches = list(batches)
    mixed = [(tuple(one.target2.tolist()), tuple(one.lam.tolist())) for one in batches]
    return [one + both for one, both in zip(comparable(batches), mixed, strict=True)]


def test_ranks_threads_and_resuming_change_no_bit(sets):
    made, options = sets["anywhere"], {"crops_per_image": 3, "global_batch_size": 24, "seed": 4}
    loader = made.loader(**options)
    whole = everything(itertools.islice(itertools.chain(loader, loader), 9))
    parts = [everything(made.loader(rank=rank, world_size=2, threads=3, **options)) for rank in range(2)]
    joined = [tuple(a + b for a, b in zip(*both, strict=True)) for both in zip(*parts, strict=True)]
    assert joined == whole[: len(joined)] and len(joined) == 4
    stopped = made.loader(**options)
    walk = iter(stopped)
    taken = everything(itertools.islice(walk, 3))
    resumed = made.loader(threads=1, **options)
    resumed.load_state_dict(stopped.state_dict())
    assert taken + everything(itertools.islice(itertools.chain(resumed, resumed), 6)) == whole


@pytest.mark.parametrize("options", [{}, {"temperature": 3.0}, {"rule": "marginal_smoothing_k3"}])
def test_order_and_labels_are_those_of_the_same_set_unmixed(sets, folder, options):
    mixed, plain = sets["embedded"], Made(str(folder / "plain"), None)
    loaders = (made.loader(shuffle=False, **options) for made in (mixed, plain))
    for one, other in zip(*loaders, strict=True):
        assert torch.equal(one.labels.dense(), other.labels.dense())
        assert one.key == other.key and torch.equal(one.crop, other.crop)
        assert other.target2 is None and other.lam is None and one.target2 is not None
        same = one.lam == 1
        assert torch.equal(one.images[same], other.images[same]) and not torch.equal(one.images, other.images)


@pytest.mark.parametrize("place", ["embedded", "anywhere"])
def test_object_storage_cold_and_cached(sets, truths, place, s3_server, s3_url, tmp_path):
    upload(sets[place].labels, s3_url, s3_server.options())
    loader = Made(s3_url, None).loader(
        crops_per_image=6,
        global_batch_size=36,
        cache_dir=str(tmp_path / "cache"),
        store_options=s3_server.options(),
    )
    for _ in range(2):  # the first walk reads by range, the second from the cache
        assert len(check_mixed(loader, truths[place])) == 36 * 6
    never = Made(s3_url, None).loader(
        cache_dir=str(tmp_path / "no"), store_options=s3_server.options(), lanes=1
    )
    check_mixed(never, truths[place])


def test_a_batch_moves_as_one(sets):
    batch = next(iter(sets["embedded"].loader().to("meta")))
    assert {tensor.device.type for tensor in batch.tensors()} == {"meta"}
    assert batch.target2.shape == batch.lam.shape == (24,)
    assert (batch.target2.dtype, batch.lam.dtype) == (torch.int64, torch.float32)
    images, dense = next(iter(sets["embedded"].loader().pairs()))
    assert len(images) == len(dense) == 24


def test_labels_of_several_sets_are_averaged_where_they_are_mixed_alike(sets, folder, tmp_path, truths):
    source = str(folder / "plain")
    again = mixed_of(source, str(tmp_path / "again"))
    check_mixed(Made([sets["embedded"].labels, again], None).loader(), truths["embedded"])
    other = mixed_of(source, str(tmp_path / "other"), seed=1)
    with pytest.raises(errors.ReplayError, match="its crops are not those of the first label set"):
        list(Made([sets["embedded"].labels, other], None).loader())
    with pytest.raises(errors.ReplayError, match="its crops have other views"):
        Made([sets["embedded"].labels, source], None).loader()


def test_label_adaptation_takes_both_targets(sets):
    by = LabelAdaptation(1.0, 0.0, 1.0)  # every crop learns its hard labels alone
    for batch in sets["embedded"].loader(label_adaptation=by):
        hard = torch.zeros(len(batch), 20)
        rows = torch.arange(len(batch))
        hard[rows, batch.target] += batch.lam
        hard[rows, batch.target2.clamp(min=0)] += 1 - batch.lam
        torch.testing.assert_close(batch.labels.dense(), hard)
    unknown = torch.full((len(batch),), -1)
    left = adapted(batch.labels, batch.target, torch.zeros(len(batch)), by, unknown, batch.lam)
    mixed = batch.lam < 1
    assert mixed.any() and torch.equal(left.dense()[mixed], batch.labels.dense()[mixed])


@pytest.mark.parametrize("labels_of", ["full", "lowrank"])
def test_generated_views_are_mixed_and_extended(photographs, tmp_path, labels_of):
    """Two sets joined while they load have the views of one run, whose pixels and labels are those of whole records."""
    options = {"embed_images": "original", "label_type": labels_of, "mixup": 0.8, "cutmix": 1.0, **VIEWS}
    few = make(photographs, tmp_path / "few", num_crops=4, **options)
    more = make(photographs, tmp_path / "more", num_crops=6, extend=few, **options)
    whole = make(photographs, tmp_path / "whole", num_crops=6, **options)
    truth = mixed_truth(whole)
    assert len(check_mixed(Made(whole, None).loader(crops_per_image=6), truth)) == 36 * 6
    joined = {place: replace(one, dense=None) for place, one in truth.items()}
    for batch in Made([few, more], None).loader(crops_per_image=6):
        for i, place in enumerate(zip(batch.key, batch.crop.tolist(), strict=True)):
            wanted = joined.pop(place)
            assert torch.equal(batch.images[i], wanted.pixels)
            assert (int(batch.target2[i]), float(batch.lam[i])) == (wanted.target2, np.float32(wanted.lam))
    assert not joined


def changed(data: bytes) -> bytes:
    stream = io.BytesIO()
    ImageOps.mirror(Image.open(io.BytesIO(data))).save(stream, "JPEG")
    return stream.getvalue()


def only_partner(made: Made) -> tuple[str, str]:
    """(key, partner's key) of the first mixed crop of the set."""
    labels = slg_wds.open_labels(made.labels)
    record = next(one for one in labels if one.views.mixing.mixed[:1].any())
    return record.key, str(labels.plan.keys[int(record.views.mixing.partner[0])])


def edited(source: str, target: str, edit) -> Made:
    """The set `source` with `edit(record)` for each record."""
    opened = slg_wds.open_labels(source)
    requires = [one for one in opened.description.requires if one != "trailer"]
    labels = create_labels(Location(target), opened.plan, opened.identity.to_json(), {}, None, requires)
    for shard in range(opened.num_shards):
        samples = [
            labels.encode_sample(Sample(edit(one.record), one.image, one.image_ext))
            for one in opened.shard(shard)
        ]
        commit_shard(labels, shard, labels.encode_shard(shard, samples, [], {}))
    finish_set(labels)
    return Made(target, None)


def test_a_partner_that_was_replaced_is_named(sets, photographs, tmp_path):
    """Every first crop is mixed with the same partner, which no batch that is read has as an image of its own."""
    shutil.copytree(photographs, tmp_path / "images")
    key, partner = only_partner(sets["folder"])
    path = tmp_path / "images" / "train" / f"{partner}.jpg"
    path.write_bytes(changed(path.read_bytes()))
    loader = sets["folder"].loader(
        images=str(tmp_path / "images"), evaluation=True, global_batch_size=1, prefetch=1, threads=1
    )
    with pytest.raises(
        errors.ImageChangedError, match=rf"{path.name} is not the image that was labelled"
    ) as caught:
        for batch in loader:
            assert partner not in batch.key and batch.key != [key]
    assert (caught.value.key, caught.value.url) == (partner, str(path))


@pytest.mark.parametrize(
    ("partner", "message"),
    [(36, "has image 36 mixed in, and 36 are planned"), (7, "crops asked for are not among the record's 6")],
)
def test_partners_that_cannot_be_are_refused(sets, tmp_path, partner, message):
    def edit(record):
        mixing = record.views.mixing
        numbers = np.full_like(mixing.partner, partner)
        crops = np.full_like(mixing.crop, 6)
        lam, box = np.full_like(mixing.lam, 9), np.zeros_like(mixing.box)
        wrong = replace(mixing, partner=numbers, crop=crops, lam=lam, box=box)
        return replace(record, views=replace(record.views, mixing=wrong))

    made = edited(sets["embedded"].labels, str(tmp_path / "set"), edit)
    with pytest.raises(errors.RecordError, match=message) as caught:
        list(made.loader(threads=1))
    if partner < 36:
        assert caught.value.key == slg_wds.open_labels(made.labels).plan.keys[partner]


def pipeline(made: Made, stage, **options):
    labels = slg_wds.open_labels(made.labels)
    tars = [f"{made.labels}/{labels.shard_name(number)}" for number in range(labels.num_shards)]
    data = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    return stage(data.map(decode_record_stage(**options)), labels.plan.keys)


def by_shard(data, keys):
    return data.compose(cut_shards(keys, 32, "bilinear"))


def test_a_stage_of_whole_shards_mixes_as_the_loader_does(sets, truths):
    data = pipeline(sets["embedded"], by_shard, crops_per_image=6)
    batches = torch.utils.data.DataLoader(data, 9, num_workers=2, collate_fn=CollateCrops("full"))
    assert len(check_mixed(batches, truths["embedded"])) == 36 * 6


def test_a_stage_of_whole_shards_serves_unmixed_sets(folder):
    made = Made(str(folder / "plain"), None)
    one, other = (
        CollateCrops("full")(list(pipeline(made, stage)))
        for stage in (by_shard, lambda data, keys: data.map(cut_crops(32, "bilinear")))
    )
    assert torch.equal(one.images, other.images) and one.lam is None


def test_stages_refuse_what_they_cannot_see(sets):
    with pytest.raises(errors.RecordError, match=r"this stage sees one sample at a time.*cut_shards"):
        next(iter(pipeline(sets["embedded"], lambda data, keys: data.map(cut_crops(32, "bilinear")))))
    with pytest.raises(errors.RecordError, match=r"not among the samples of its shard.*SoftLabelLoader"):
        list(pipeline(sets["anywhere"], by_shard))


def test_training_does_not_mix_what_is_mixed(sets, photographs, tmp_path, capsys):
    from slg_wds.training.command import main
    from support.training import PLAIN, common

    words = [*common(sets["embedded"].labels), "-a", PLAIN, "--save_checkpoint_path", str(tmp_path)]
    assert main([*words, "--mixup_cutmix"]) != 0
    error = capsys.readouterr().err
    assert "its views have other images mixed in already" in error and "leave out --mixup_cutmix" in error
    assert main([*words, "--epochs", "1", "--seed", "0"]) == 0
    assert not list(Path(tmp_path).glob("*.tmp"))
