"""Runs: resume, several processes, determinism, kill -9, bad input."""

from __future__ import annotations

import gc
import io
import json
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from support.models import tiny_teacher
from support.photographs import NAN, TINY, made_here, tool
from support.sets.replay_sets import tiny_run

KILL = tool("kill_test")
VIEWS = ("--aa", "rand-m9-mstd0.5-inc1", "--reprob", "0.25", "--mixup", "0.8", "--cutmix", "1")


def config(data, target, **options):
    return tiny_run(data, target, **{"num_crops": 30, **options})


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory):
    target = tmp_path_factory.mktemp("undisturbed") / "set"
    result = slg_wds.generate(config(photographs, target))
    assert result.complete and result.stats.images == 36
    return target


def test_records_follow_the_plan_and_hold_what_was_asked(photographs, undisturbed):
    labels = slg_wds.open_labels(str(undisturbed))
    records = list(labels)
    assert [record.key for record in records] == list(labels.plan.keys)
    assert sorted(record.path for record in records) == sorted(
        str(p.relative_to(photographs / "train")) for p in (photographs / "train").rglob("*.jpg")
    )
    for record in records:
        assert record.crops.shape == (30, 4) and record.index.shape == (30, 5)
        with Image.open(photographs / "train" / record.path) as image:
            assert record.size == (image.height, image.width)
        assert (
            record.path.split("/")[0]
            == sorted(p.name for p in (photographs / "train").iterdir())[record.target]
        )


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 5}, {"batch_size": 1}, {"batch_size": 50}])
def test_bytes_do_not_depend_on_threads_or_read_ahead(photographs, undisturbed, tmp_path, options):
    slg_wds.generate(config(photographs, tmp_path / "set", **options))
    assert KILL.contents(tmp_path / "set") == KILL.contents(undisturbed)


@pytest.mark.parametrize(
    ("options", "ahead"),
    [
        ({"num_crops": 500}, 8),
        ({"num_crops": 4}, 25),
        ({"num_crops": 1}, 100),
        ({"num_crops": 1, "num_seg": 256}, 128),
        ({"num_crops": 1, "batch_size": 3}, 3),
    ],
)
def test_few_crops_an_image_are_read_further_ahead(photographs, tmp_path, options, ahead):
    """Otherwise, two forwards would need more images than are being read, and the teacher would wait."""
    recipe = Recipe.of(config(photographs, tmp_path / "set", **{"num_seg": 50, **options}))
    assert open_job(recipe, save=False).images_ahead == ahead


def test_the_clock_starts_once_everything_is_loaded(photographs, tmp_path):
    """Otherwise, the rate would count the time to import torchvision and webdataset."""
    code = (
        "import sys\nfrom slg_wds import GenerateConfig\nfrom slg_wds.generation.command import GenerateTask\n"
        "from slg_wds.generation.recipe import Recipe\n"
        "from slg_wds.engines.reports.run_stats import RunObserver\n"
        "class Told(RunObserver):\n"
        "    def begin(self, start): self.loaded = set(sys.modules)\n"
        "told, more = Told(), dict(workers=1, threads_per_forward=1, num_crops=4, num_seg=4)\n"
        f"config = GenerateConfig(data={str(photographs)!r}, arch={TINY!r}, teacher_source='private', "
        f"save_path={str(tmp_path / 'set')!r}, **more)\n"
        "GenerateTask(Recipe.of(config), ('cpu',), None)(0, 1, told)\n"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - told.loaded}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "torchvision", "webdataset", "PIL"} & set(eval(done.stdout)), done.stdout


def test_a_second_run_makes_nothing_and_a_lost_shard_comes_back_the_same(photographs, undisturbed, tmp_path):
    target = tmp_path / "set"
    slg_wds.generate(config(photographs, target))
    assert slg_wds.generate(config(photographs, target)).stats.shards == 0
    (target / "train-000003.tar").unlink()
    (target / "index" / "train-000001").unlink()
    (target / "_info.json").unlink()
    assert slg_wds.generate(config(photographs, target)).stats.shards == 1
    assert KILL.contents(target) == KILL.contents(undisturbed)


def test_killed_at_random_moments_the_set_is_byte_identical(tmp_path):
    kills, _ = KILL.kill_and_compare(tmp_path, 2, 24, 1, *VIEWS)
    assert kills > 0


def test_two_processes_share_the_work(photographs, tmp_path, monkeypatch):
    """Both load before either begins, so that the time to import torch does not count."""
    more = [
        "--samples-per-shard",
        "1",
        "--num_crops",
        "100",
        "-j",
        "1",
        "-a",
        TINY.replace(":tiny", ":unhurried"),
        *VIEWS,
    ]
    made_here(KILL.command(photographs, tmp_path / "alone", *more))
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("SLG_TEST_MEETING", f"{tmp_path / 'meeting'}:2")
    command = KILL.command(photographs, tmp_path / "set", *more)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    outputs = [process.communicate()[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert KILL.contents(tmp_path / "set") == KILL.contents(tmp_path / "alone")
    made = [int(re.search(r"(\d+) shards?, [\d.]+ MB", output)[1]) for output in outputs]
    lost = [int(found[1]) if (found := re.search(r"(\d+) shards? made by", o)) else 0 for o in outputs]
    assert sum(made) == 36
    assert all(m + x <= 0.65 * 36 for m, x in zip(made, lost, strict=True)), (made, lost)


def test_crops_of_several_images_share_a_forward_and_labels_do_not_move(photographs, undisturbed, tmp_path):
    """num_seg is provenance: other packing, same boxes, and labels that differ in the last bits at most."""
    slg_wds.generate(config(photographs, tmp_path / "set", num_seg=7))
    pairs = zip(
        slg_wds.open_labels(str(undisturbed)), slg_wds.open_labels(str(tmp_path / "set")), strict=True
    )
    for a, b in pairs:
        assert np.array_equal(a.crops, b.crops) and np.array_equal(a.flips, b.flips)
        assert np.abs(a.value - b.value).max() < 1e-3


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


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"num_crops": 31}, "num_crops: 30 != 31"),
        ({"seed": 1}, "seed"),
        ({"temp": 2.0}, "temperature: 1.0 != 2.0"),
        ({"label_type": "shared_tail_k5"}, "label_type"),
        ({"max_scale_crops": 0.936}, "crop_scale"),
        ({"values": "log8"}, "values"),
        ({"input_size": 40}, "input_size"),
        ({"samples_per_shard": 6}, "shards of 5 images there, of 6 now"),
    ],
)
def test_another_identity_is_refused_and_named(photographs, undisturbed, changed, named):
    before = KILL.contents(undisturbed)
    with pytest.raises(errors.IdentityMismatchError, match=named):
        slg_wds.generate(config(photographs, undisturbed, **changed))
    assert KILL.contents(undisturbed) == before


def test_an_unfinished_set_is_refused_unless_allowed(photographs, undisturbed, tmp_path):
    import shutil

    target = tmp_path / "set"
    shutil.copytree(undisturbed, target)
    (target / "_info.json").unlink()
    (target / "train-000002.tar").unlink()
    with pytest.raises(errors.IncompleteSetError, match="1 of 8 shards"):
        slg_wds.open_labels(str(target))
    assert len(list(slg_wds.open_labels(str(target), allow_incomplete=True))) == 31


def test_reference_gives_its_crops_to_another_teacher(photographs, undisturbed, tmp_path):
    options = {"reference_path": str(undisturbed), "num_crops": 12, "seed": 99, "samples_per_shard": 7}
    slg_wds.generate(config(photographs, tmp_path / "set", input_size=40, **options))
    ours = {record.key: record for record in slg_wds.open_labels(str(tmp_path / "set"))}
    for record in slg_wds.open_labels(str(undisturbed)):
        assert np.array_equal(ours[record.key].crops, record.crops[:12])
        assert np.array_equal(ours[record.key].flips, record.flips[:12])


def test_options_that_a_reference_overrides_are_named(photographs, undisturbed, tmp_path, capsys):
    options = {"reference_path": str(undisturbed), "num_crops": 12, "max_scale_crops": 0.9, "flip_prob": 0.0}
    slg_wds.generate(config(photographs, tmp_path / "set", **options))
    named = "not used, since the reference gives the crops: --max-scale-crops, --flip-prob"
    assert named in capsys.readouterr().err.splitlines()


def test_reference_with_too_few_crops_or_images_is_refused(photographs, undisturbed, tmp_path):
    with pytest.raises(errors.ReferenceSetError, match="30 crops an image, fewer than the 31 asked for"):
        slg_wds.generate(config(photographs, tmp_path / "a", reference_path=str(undisturbed), num_crops=31))
    few = tmp_path / "few.txt"
    few.write_text("n02123045/chelsea_0.jpg\nn07920052/coffee_1.jpg\n")
    slg_wds.generate(config(photographs, tmp_path / "few", list_file=str(few)))
    with pytest.raises(errors.ReferenceSetError, match="lacks 34 of 36 images"):
        slg_wds.generate(config(photographs, tmp_path / "b", reference_path=str(tmp_path / "few")))
    result = slg_wds.generate(
        config(photographs, tmp_path / "c", reference_path=str(tmp_path / "few"), on_error="skip")
    )
    assert result.stats.images == 2 and len(result.stats.left_out) == 34
    assert {record.key for record in slg_wds.open_labels(str(tmp_path / "c"))} == {
        "n02123045/chelsea_0",
        "n07920052/coffee_1",
    }


def test_damaged_images_stop_the_run_or_are_left_out_counted_and_recorded(photographs, tmp_path):
    import shutil

    data = tmp_path / "photographs"
    shutil.copytree(photographs, data)
    damaged = data / "train" / "n07920052" / "coffee_2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:4000])
    with pytest.raises(errors.ImageDecodeError, match=r"n07920052/coffee_2.*--on-error skip"):
        slg_wds.generate(config(data, tmp_path / "set"))
    result = slg_wds.generate(config(data, tmp_path / "set", on_error="skip"))
    assert result.complete and result.stats.images <= 35
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    keys = [record.key for record in labels]
    assert len(keys) == 35 and "n07920052/coffee_2" not in keys
    left_out = [e for n in range(labels.num_shards) for e in labels.shard(n).header.left_out]
    assert [entry["path"] for entry in left_out] == ["n07920052/coffee_2.jpg"] and left_out[0]["reason"]
    info = json.loads((tmp_path / "set" / "_info.json").read_text())["splits"]["train"]
    assert info["num_samples"] == 35 == sum(info["shard_lengths"])


def test_a_teacher_that_gives_nan_stops_the_run_with_nothing_half_written(photographs, tmp_path):
    with pytest.raises(errors.TeacherOutputError, match="NaN"):
        slg_wds.generate(config(photographs, tmp_path / "set", arch=NAN, samples_per_shard=36))
    assert not list((tmp_path / "set").rglob("*.tar"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--num_crops", "0"], "--num-crops 0 is below 1"),
        (
            ["--label_type", "shared_tail_k21"],
            "--label-type shared_tail_k21 needs 21 classes, but there are 20",
        ),
        (["--num_seg", "-1"], "--num-seg -1 is below 1"),
        (["--label_type", "marginal_smoothing_k21"], "21 classes"),
        (["--label_type", "marginal_smooth_k5"], "marginal_smoothing_k5"),
        (["--min_scale_crops", "0.5", "--max_scale_crops", "0.4"], "crop scale"),
        (["--max_scale_crops", "1.5"], "crop scale"),
        (["--interpolation", "cubic"], "bicubic"),
        (["--teacher_source", "hub"], "hub"),
        (["--use_fp16", "--values", "log8"], "contradicts"),
        (["--embed-images", "small"], "max-side"),
        (["--world-size", "2"], "torchrun"),
        (["--dist-url", "env://"], "--save-path"),
        (["--split", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(photographs, tmp_path, capsys, options, named):
    base = ["generate", str(photographs), "-a", TINY, "--teacher_source", "private"]
    code = main([*base, "--save-path", str(tmp_path / "set"), *options])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code != 0 and len(lines) == 1 and named in lines[0], lines
    assert not (tmp_path / "set").exists()


def test_a_folder_with_something_else_is_refused(photographs, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("mine")
    code = main(
        [
            "generate",
            str(photographs),
            "-a",
            TINY,
            "--teacher_source",
            "private",
            "--save-path",
            str(tmp_path / "set"),
        ]
    )
    assert code == 1 and "thesis.txt" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["thesis.txt"]


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
    from support.photographs import LITE0

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


def test_interrupted_runs_leave_whole_shards_and_say_how_to_resume(photographs, tmp_path):
    import signal
    import time

    command = KILL.command(photographs, tmp_path / "set", "--num_crops", "5000")
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "set").glob("*.tar")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "resume" in err.decode()
    labels = slg_wds.open_labels(str(tmp_path / "set"), allow_incomplete=True)
    assert 0 < len(list(labels)) < 36


def test_dry_run_says_what_would_be_done_and_writes_nothing(photographs, tmp_path, capsys):
    options = [
        "--dry-run",
        "--num_crops",
        "200",
        "--samples-per-shard",
        "10",
        "--save-path",
        str(tmp_path / "set"),
    ]
    assert main(["generate", str(photographs), "-a", TINY, "--teacher_source", "private", *options]) == 0
    out = capsys.readouterr().out
    assert "36 images in 4 shards" in out and "7,200 crops" in out and "bytes/crop" in out
    assert not (tmp_path / "set").exists()


def test_help_imports_no_torch():
    code = (
        "import sys; from slg_wds.cli import main; main(['--help']);"
        "assert not {'torch', 'webdataset', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
