"""What a set holds: labels of the pixels that were seen, embedded images, names and targets of image shards."""

from __future__ import annotations

import gc
import io
import tarfile
from functools import partial

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

import slg_wds
from support.models import tiny_teacher
from support.models.names import TINY
from support.sets.replay_sets import tiny_run

config = partial(tiny_run, num_crops=30)


def test_stored_pixels_give_stored_labels(photographs, tmp_path):
    """The teacher on our own pixels, one crop at a time, agrees to 1e-5 before quantisation."""
    from slg_wds.images import decode
    from slg_wds.transforms.crops import cut

    slg_wds.generate(config(photographs, tmp_path / "set", label_type="full", values="float32", temp=2.0))
    model = tiny_teacher.tiny().eval()
    mean, std = (torch.tensor(model.pretrained_cfg[n]).view(3, 1, 1) for n in ("mean", "std"))
    for record in list(slg_wds.open_labels(str(tmp_path / "set")))[::6]:
        pixels = decode((photographs / "train" / record.path).read_bytes())
        for number in range(0, 30, 3):
            crop = torch.empty((1, 3, 32, 32), dtype=torch.uint8, memory_format=torch.channels_last)
            cut(
                pixels, record.crops[number : number + 1], record.flips[number : number + 1], crop, "bilinear"
            )
            with torch.inference_mode():
                expected = (model((crop.float() / 255 - mean) / std) / 2.0).softmax(1)[0].numpy()
            assert np.abs(record.value[number] - expected).max() < 1e-5


def test_several_teachers_in_one_pass_are_the_mean_of_each(photographs, tmp_path):
    """Each with its own input size and interpolation, on the same boxes: the exact ensemble of MEAL V2."""
    other = TINY.replace(":tiny", ":other")
    options = {"label_type": "full", "values": "float32", "num_crops": 10}
    for name, arch, weights in [
        ("a", TINY, None),
        ("b", other, None),
        ("both", f"private:{TINY},private:{other}", (1.0, 3.0)),
    ]:
        slg_wds.generate(config(photographs, tmp_path / name, arch=arch, weights=weights, **options))
    sets = [slg_wds.open_labels(str(tmp_path / name)) for name in ("a", "b", "both")]
    assert [teacher["weight"] for teacher in sets[2].identity["teachers"]] == [0.25, 0.75]
    for a, b, both in zip(*sets, strict=True):
        assert np.array_equal(a.crops, both.crops)
        assert np.abs(0.25 * a.value + 0.75 * b.value - both.value).max() < 1e-6


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # stock webdataset closes late
def test_embedded_images_are_the_files_and_stock_webdataset_reads_them(photographs, tmp_path):
    slg_wds.generate(config(photographs, tmp_path / "set", embed_images="original"))
    shards = sorted(str(p) for p in (tmp_path / "set").glob("*.tar"))
    seen = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(seen) == 36
    for sample in seen:
        assert sample["jpg"] == (photographs / "train" / (sample["__key__"] + ".jpg")).read_bytes()
        assert int(sample["cls"]) >= 0 and sample["slg.msgpack"]
    gc.collect()


def test_reencoded_images_are_what_was_labelled(photographs, tmp_path):
    slg_wds.generate(config(photographs, tmp_path / "set", embed_images="max-side=200,quality=80"))
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    for number in range(labels.num_shards):
        for sample in labels.shard(number):
            image = Image.open(io.BytesIO(sample.image))
            assert max(image.size) == 200 and sample.record.size == (image.height, image.width)


def test_image_shards_keep_their_names_order_and_targets(photographs, tmp_path):
    paths = sorted((photographs / "train").rglob("*.jpg"))
    names = [f"part-{number:02d}" for number in (3, 1, 2)]
    (tmp_path / "data").mkdir()
    for number, name in enumerate(names):
        with webdataset.TarWriter(str(tmp_path / "data" / f"{name}.tar")) as writer:
            for path in paths[number::3]:
                writer.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": number * 7})
    slg_wds.generate(config(tmp_path / "data", tmp_path / "set"))
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    assert labels.plan.shard_names == sorted(names)
    for shard, name in enumerate(sorted(names)):
        number = names.index(name)
        found = [sample.record for sample in labels.shard(shard)]
        assert [record.key for record in found] == [path.stem for path in paths[number::3]]
        assert {record.target for record in found} == {number * 7}
        with tarfile.open(tmp_path / "data" / f"{name}.tar") as tar:
            for (offset, size), path in zip(labels.index(shard).images, paths[number::3], strict=True):
                member = tar.getmember(f"{path.stem}.jpg")
                assert (offset, size) == (member.offset_data, member.size)


def test_a_subset_of_imagenet_folders_gets_the_teachers_numbers(photographs, tmp_path):
    """Folders are WordNet ids and the teacher has 1000 classes: targets are its numbers, --class-subset keeps six."""
    from support.models.names import LITE0

    options = {"arch": LITE0, "num_crops": 2, "samples_per_shard": 36}
    slg_wds.generate(config(photographs, tmp_path / "all", **options))
    targets = {
        record.path.split("/")[0]: record.target for record in slg_wds.open_labels(str(tmp_path / "all"))
    }
    assert targets == {
        "n02123045": 281,
        "n07920052": 967,
        "n04266014": 812,
        "n03785016": 665,
        "n03877845": 698,
        "n11939491": 985,
    }
    result = slg_wds.generate(config(photographs, tmp_path / "six", class_subset="auto", **options))
    labels = result.labels
    assert labels.num_classes == 6 and labels.identity["class_subset"] == [281, 665, 698, 812, 967, 985]
    assert labels.description.class_names == [
        "n02123045",
        "n03785016",
        "n03877845",
        "n04266014",
        "n07920052",
        "n11939491",
    ]
    assert result.stats.agreed / result.stats.targeted > 0.8
