"""The summary of a run: bytes of labels and of images, and next commands that work as printed."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.config.prototypes import number_that_fits
from slg_wds.config.training import flags_that_fit
from support.models.names import TINY
from support.sets import trust_sets
from support.training import PLAIN


@pytest.fixture(scope="module")
def images(photographs, tmp_path_factory) -> Path:
    return trust_sets.small_photographs(photographs, tmp_path_factory.mktemp("a folder") / "images")


def generated(images: Path, target: Path, capsys, *more: str) -> tuple[str, str]:
    command = ["generate", str(images), "-a", TINY, "--teacher_source", "private", "--num_crops", "6"]
    assert main([*command, "--samples-per-shard", "4", "--save-path", str(target), *more]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_bytes_of_embedded_images_are_told_apart(images, tmp_path, capsys):
    said, _ = generated(images, tmp_path / "set", capsys, "--embed-images", "original")
    labels, pictures = map(
        float, re.search(r"([\d.]+) bytes/crop of labels, ([\d.,]+) of images", said).groups()
    )
    shards = [path.read_bytes() for path in (tmp_path / "set").glob("*.tar")]
    sizes = []
    for data in shards:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            sizes += [512 + -(-one.size // 512) * 512 for one in tar if one.name.endswith(".jpg")]
    assert len(sizes) == 8 and pictures == round(sum(sizes) / 48, 2)
    assert labels == round((sum(map(len, shards)) - sum(sizes)) / 48, 2)
    dry, _ = generated(images, tmp_path / "other", capsys, "--embed-images", "original", "--dry-run")
    assert re.search(r"[\d.]+ bytes/crop of labels, [\d.]+ of images measured", dry)  # of the first images


def test_without_images_there_is_one_figure(images, tmp_path, capsys):
    said, _ = generated(images, tmp_path / "set", capsys)
    assert re.search(r"MB, [\d.]+ bytes/crop$", said, re.MULTILINE)


@pytest.mark.parametrize("embed", [(), ("--embed-images", "original")])
def test_the_next_commands_work(images, tmp_path, capsys, monkeypatch, embed):
    monkeypatch.chdir(tmp_path)
    said, _ = generated(images, tmp_path / "the set", capsys, *embed)
    start = said.index("  next: ") + len("  next: ")
    inspect, report, train = (shlex.split(line) for line in said[start:].splitlines()[:3])
    assert inspect[0] == report[0] == train[0] == "slg-wds" and train[1] == "train"
    for command in (inspect, report):
        assert main(command[1:]) == 0
    assert ("--images" in report) == (not embed) and (tmp_path / "report.html").exists()
    assert train[-1] == (str(tmp_path / "the set") if embed else str(images))
    assert (
        main([*train[1:], "-a", PLAIN, "--epochs", "1"]) == 0 and "trained 1 steps" in capsys.readouterr().out
    )


def test_labels_of_held_out_images_are_to_test_on(images, tmp_path, capsys, monkeypatch):
    """A student that is trained on them would be tested on what it learned."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(images / "train", tmp_path / "both" / "train")
    shutil.copytree(images / "train", tmp_path / "both" / "val")
    generated(tmp_path / "both", tmp_path / "LABELS_OF_TRAIN", capsys)
    said, _ = generated(tmp_path / "both", tmp_path / "held out", capsys, "--split", "val")
    train = shlex.split(said[said.index("slg-wds train") :].splitlines()[0])
    assert train[train.index("--val-softlabels") + 1] == str(tmp_path / "held out")
    assert main([*train[1:], "-a", PLAIN, "-b", "8", "--epochs", "4"]) == 0
    said = capsys.readouterr().out
    assert "on 8 held-out images" in said
    assert "class folders of val are, so IMAGES/val is not used; --class-map says it" in said


@pytest.mark.parametrize(
    ("images", "flags"),
    [
        (3, "--num_crops 3 -b 3"),
        (4, "-b 4"),
        (7, "-b 4"),
        (36, "-b 36"),
        (1023, "-b 1020"),
        (1, "--num_crops 1 -b 1"),
    ],
)
def test_flags_that_fit_few_images(images, flags):
    assert flags_that_fit(images) == flags


@pytest.mark.parametrize(
    ("crops", "number"), [(2, 2), (24, 4), (48, 8), (32767, 4096), (32768, 8192), (10**9, 8192)]
)
def test_prototypes_that_fit_few_crops(crops, number):
    assert number_that_fits(crops) == number


def test_flags_that_fit_several_processes():
    assert flags_that_fit(100, 6, 8) == "-b 96" and flags_that_fit(20, 6, 8) == "--num_crops 2 -b 16"
    assert flags_that_fit(7, 6, 8) == ""


def test_the_next_commands_of_embeddings_work(images, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said, _ = generated(images, tmp_path / "the set", capsys, "--output", "embedding")
    start = said.index("  next: ") + len("  next: ")
    inspect, report, train, bank = (shlex.split(line) for line in said[start:].splitlines())
    for command in (inspect, report, bank):
        assert main(command[1:]) == 0
    said = capsys.readouterr().out
    ensemble = re.search(r"^next: slg-wds (ensemble .*)$", said, re.MULTILINE)[1]
    assert main([*shlex.split(ensemble), "--processes", "1"]) == 0
    assert slg_wds.open_labels("LABELS").num_classes == 8  # of 48 crops
    assert main([*train[1:], "-a", "test_resnet", "--size", "32", "--epochs", "1"]) == 0


@pytest.mark.parametrize("output", ["labels", pytest.param("embedding", marks=pytest.mark.slow)])
def test_the_next_commands_of_a_set_that_extends_another_name_both(
    images, tmp_path, capsys, monkeypatch, output
):
    monkeypatch.chdir(tmp_path)
    generated(images, tmp_path / "the old", capsys, "--output", output)
    more = ("--extend", "the old", "--num_crops", "8", "--output", output)
    said, _ = generated(images, tmp_path / "new", capsys, *more)
    start = said.index("  next: ") + len("  next: ")
    inspect, report, train, join, *bank = (shlex.split(line) for line in said[start:].splitlines())
    student = ["-a", PLAIN] if output == "labels" else ["-a", "test_resnet", "--size", "32"]
    for command in (inspect, report, [*train, *student, "--epochs", "1"], [*join, "--processes", "1"]):
        assert main(command[1:]) == 0, command
    assert "8 images\n" in capsys.readouterr().out and len(bank) == (output == "embedding")
    assert slg_wds.open_labels("ALL").num_crops == 8 and report[2:4] == [
        str(tmp_path / "the old"),
        str(tmp_path / "new"),
    ]


def test_a_set_that_extends_another_is_refused_alone_with_the_form_that_the_command_takes(
    images, tmp_path, capsys
):
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    generated(images, tmp_path / "old", capsys)
    generated(images, tmp_path / "new", capsys, "--extend", old, "--num_crops", "8")
    folder = ["--save_checkpoint_path", str(tmp_path / "out")]
    train = ["train", "-a", PLAIN, "--softlabel_path", new, *folder, str(images)]
    assert main(train) == 2
    assert capsys.readouterr().err.rstrip().endswith("give both: --softlabel_path OLD --softlabel_path NEW")
    assert main(["report", new, "-o", str(tmp_path / "r.html")]) == 2
    assert capsys.readouterr().err.rstrip().endswith("give both: OLD NEW")


def test_a_resumed_run_counts_on(images, tmp_path, capsys):
    generated(images, tmp_path / "set", capsys)
    for name in ("_info.json", "train-000000.tar", "index/train-000000"):
        (tmp_path / "set" / name).unlink()
    said, progress = generated(images, tmp_path / "set", capsys)
    assert "shard 2/2" in progress and "made here: 4 images" in said
    said, progress = generated(images, tmp_path / "set", capsys)
    assert "nothing was left to make" in said and "  next: slg-wds inspect" in said


def test_a_resumed_run_names_what_earlier_runs_left_out(images, tmp_path, capsys):
    """Two bad images in different shards: each run names both, and says how many of them it met itself."""
    copy, target = trust_sets.copy_of(images, tmp_path / "images"), tmp_path / "set"
    bad: dict[int, str] = {}
    labels = slg_wds.open_labels(str(trust_sets.make(copy, tmp_path / "sound", samples_per_shard=4)))
    for number in range(2):
        bad[number] = labels.plan.shard(number).paths[1]
        (path,) = copy.rglob(bad[number].rpartition("/")[2])
        path.write_bytes(path.read_bytes()[:300])
    skipping = ("--on-error", "skip")

    def named(said: str) -> tuple[str, list[str]]:
        lines = [line.strip() for line in said.splitlines()]
        at = next(at for at, line in enumerate(lines) if line.startswith("LEFT OUT"))
        return lines[at], lines[at + 1 : at + 3]

    said, _ = generated(copy, target, capsys, *skipping)
    head, first = named(said)
    assert head == "LEFT OUT: 2" and [line.partition(": ")[0] for line in first] == sorted(bad.values())
    assert all(len(line.partition(": ")[2]) > 10 for line in first)  # the reason
    of = {number: next(line for line in first if line.startswith(path)) for number, path in bad.items()}
    said, _ = generated(copy, target, capsys, *skipping)
    assert "nothing was left to make" in said
    assert named(said) == ("LEFT OUT (0 by this run): 2", [of[0], of[1]])
    for name in ("_info.json", "train-000001.tar", "index/train-000001"):
        (target / name).unlink()
    said, _ = generated(copy, target, capsys, *skipping)
    assert "made here: 3 images" in said
    assert named(said) == ("LEFT OUT (1 by this run): 2", [of[1], of[0]])
    assert main(["inspect", str(target), "--json"]) == 0
    assert set(bad.values()) == {
        e["path"] for e in json.loads(capsys.readouterr().out)["images"]["left_out_reasons"]
    }


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
