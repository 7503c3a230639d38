"""How long it takes to look at a label set of ImageNet's size: inspect, verify, report, and --help.

usage: bench_looking.py [--shards 5005] [--images 256] [--crops 16] [--rounds 5] [--keep FOLDER] [--only inspect ...]
       bench_looking.py --hollow --shards 55000 --only inspect
       bench_looking.py --s3 --images 4 --crops 4 --only inspect

The labels are made up: 5,005 shards of 256 images with names as ImageNet's, float16, k = 5, a shared tail, no images.
Each command is a process of its own, its interpreter's start included; the best and the median of the rounds are
printed, beside those of peers that do the least that could do: an interpreter that imports numpy and rich, `sha256sum`
of every shard. Files are in the page cache. --keep makes the set once and finds it there again. With --hollow only the
shards that `inspect` opens are real, the others holes of a size: so many images take minutes to make, not hours. --s3
copies the set to SeaweedFS on loopback and inspects it there too, complete and then with shards missing.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import numpy as np

from slg_wds.format.manifest.info import Info, encode_info
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import build_tail
from slg_wds.format.shards.shard import EncodedSample
from slg_wds.inspection.sizes import SHARDS
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import spread
from slg_wds.labelset.objects import INDEX, INFO
from slg_wds.labelset.publishing import commit_shard, finish_set
from slg_wds.store import Location, open_store
from slg_wds.transforms.crops import CropRule, sample_crops

CLASSES, K, SEED, VARIETY = 1000, 5, 7, 64
COMMAND = [sys.executable, "-m", "slg_wds"]
WAYS = ("help", "inspect", "key", "verify", "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=5005)
    parser.add_argument("--images", type=int, default=256, help="of each shard")
    parser.add_argument("--crops", type=int, default=16, help="of each image")
    parser.add_argument("--hollow", action="store_true", help="make only what inspect opens")
    parser.add_argument("--rounds", type=int, default=5, help="of help, inspect and key; the others take one")
    parser.add_argument("--keep", type=Path, help="folder for the set")
    parser.add_argument("--only", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument("--s3", action="store_true", help="also inspect on S3 on loopback")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        labels = folder / f"set-{options.shards}-{options.images}-{options.crops}{'-hollow' * options.hollow}"
        if not (labels / "_info.json").exists():
            make(labels, options.shards, options.images, options.crops, options.hollow)
        print(f"load {os.getloadavg()[0]:.1f} at the start", flush=True)
        measure(labels, Path(scratch), options)
        if options.s3:
            remote(labels, options.rounds)


def make(folder: Path, shards: int, images: int, crops: int, is_hollow: bool = False) -> None:
    """Make a label set of invented labels.

    Args:
        folder: where.
        shards: how many.
        images: of each shard.
        crops: of each image.
        is_hollow: write a few shards; the others are files of the same size that hold nothing.
    """
    N = shards * images
    numbers = np.random.default_rng(SEED).permutation(N)
    keys = [
        f"n{number % CLASSES:08d}/n{number % CLASSES:08d}_{number // CLASSES}" for number in numbers.tolist()
    ]
    plan = Plan(
        [f"train-{number:06d}" for number in range(shards)],
        np.full(shards, images, np.int64),
        StringColumn.of(f"{key}.JPEG" for key in keys),
        StringColumn.of(keys),
        (numbers % CLASSES).astype(np.int32),
    )
    teacher = {"source": "timm", "arch": "none", "weights_sha256": "0" * 64, "weight": 1.0}
    identity = {
        "teachers": [teacher], "label_type": f"shared_tail_k{K}", "k": K, "values": "float16", "tail_classes": 64,
        "temperature": 1.0, "num_classes": CLASSES, "class_subset": None, "num_crops": crops,
        "crop_scale": [0.08, 1.0], "crop_ratio": [0.75, 1.3333], "flip_probability": 0.5, "seed": SEED,
        "precision": "fp32", "reference": None, "embed_images": None,
    }  # fmt: skip
    labels = create_labels(Location(str(folder)), plan, identity, {}, [f"n{c:08d}" for c in range(CLASSES)])
    patterns = [msgpack.unpackb(encode_record(made_up(number, crops))) for number in range(VARIETY)]
    for number in spread(range(shards), SHARDS) if is_hollow else labels.missing():
        commit_shard(labels, number, shard(labels, number, patterns))
    if is_hollow:
        hollow(labels, folder, images)
    finish_set(labels)


def hollow(labels: LabelSet, folder: Path, images: int) -> None:
    """List every shard, and make files of their size that hold nothing."""
    size = (folder / labels.shard_name(0)).stat().st_size
    files = [labels.shard_name(number) for number in range(labels.num_shards)]
    for name in files:
        if not (folder / name).exists():
            with (folder / name).open("xb") as file:
                file.truncate(size)
            (folder / INDEX / name.removesuffix(".tar")).touch()
    labels.store.create(INFO, encode_info(Info(labels.split, files, [images] * len(files))))


def shard(labels: LabelSet, number: int, patterns: Sequence[dict[str, object]]) -> bytes:
    """Return the bytes of one shard; its images take their labels from the patterns in turn."""
    part, samples = labels.plan.shard(number), []
    for at, (key, path, target) in enumerate(zip(part.keys, part.paths, part.targets.tolist(), strict=True)):
        fields = {**patterns[(number + at) % VARIETY], "key": key, "path": path, "target": target}
        samples.append(EncodedSample(key, {"slg.msgpack": msgpack.packb(fields, use_single_float=True)}))
    return labels.encode_shard(number, samples, [], {})


def made_up(number: int, crops: int) -> Record:
    """Return invented labels; how sharp they are differs from image to image."""
    chance = np.random.default_rng(number)
    logits = chance.normal(0, 1 + number % 5, CLASSES) + chance.normal(0, 1, (crops, CLASSES))
    rows = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows /= rows.sum(axis=1, keepdims=True)
    index = np.argsort(-rows, axis=1, kind="stable")[:, :K]
    value = np.take_along_axis(rows, index, axis=1)
    np.put_along_axis(rows, index, 0.0, axis=1)
    size = (int(chance.integers(300, 500)), int(chance.integers(300, 500)))
    boxes, flips = sample_crops(SEED, str(number), size, crops, CropRule())
    return Record(
        "key", "path", 0, size, boxes, flips, index, value.astype(np.float32),
        build_tail(rows.mean(axis=0), 64, crops, K), "float16", False, CLASSES,
    )  # fmt: skip


def measure(labels: Path, scratch: Path, options: argparse.Namespace) -> None:
    """Run each command and print a line for it."""
    last = f"n{7:08d}/n{7:08d}_3"
    quick = {
        "help": ["--help"],
        "inspect": ["inspect", str(labels)],
        "key": ["inspect", str(labels), "--key", last],
    }
    tell("an interpreter", [sys.executable, "-c", "pass"], options.rounds)
    tell("numpy and rich", [sys.executable, "-c", "import numpy, rich.table, rich.console"], options.rounds)
    for way, arguments in quick.items():
        if way in options.only:
            tell(way, [*COMMAND, *arguments], options.rounds)
    if "verify" in options.only:
        verify(labels)
    if "report" in options.only:
        page = scratch / "report.html"
        tell("report", [*COMMAND, "report", str(labels), "-o", str(page)], 1)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
        print(f"  a page of {page.stat().st_size / 1e6:.2f} MB; the largest process so far {peak:.0f} MB")


def remote(labels: Path, rounds: int) -> None:
    """Copy the set to a server of its own and inspect it there."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from support.servers.s3 import running_s3

    with running_s3() as server:
        url = f"{server.url}/{labels.name}"
        there = open_store(url, server.options())
        files = [path for path in labels.rglob("*") if path.is_file()]
        with ThreadPoolExecutor(32) as pool:
            put = lambda path: there.create(path.relative_to(labels).as_posix(), path.read_bytes())  # noqa: E731
            assert all(pool.map(put, files))
        os.environ.update(server.environment(), NO_PROXY="127.0.0.1")
        tell("inspect on S3", [*COMMAND, "inspect", url], rounds)
        there.delete("_info.json")
        for number in range(5):
            there.delete(f"train-{number:06d}.tar")
        tell("unfinished, S3", [*COMMAND, "inspect", url], rounds)


def tell(name: str, command: Sequence[str], rounds: int) -> None:
    """Run a command several times and print how long it took."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "120"})
        seconds.append(time.perf_counter() - started)
    print(f"{name:<15} best {min(seconds):.3f} s, median {statistics.median(seconds):.3f} s", flush=True)


def verify(labels: Path) -> None:
    """Print MB/s of `verify` with one process and with all, and of sha256sum."""
    tars = sorted(labels.glob("*.tar"))
    size = sum(path.stat().st_size for path in tars)
    started = time.perf_counter()
    subprocess.run(["sha256sum", *map(str, tars)], check=True, stdout=subprocess.DEVNULL)
    print(f"{'sha256sum':<15} {size / 1e6 / (time.perf_counter() - started):.0f} MB/s of {size / 1e6:.0f} MB")
    for processes in (1, os.cpu_count() or 1):
        command = [*COMMAND, "verify", str(labels), "--processes", str(processes)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        rate = re.search(r"\(([\d,]+) MB/s\)", said)
        print(
            f"{f'verify, {processes}':<15} {rate[1] if rate else '?'} MB/s; {size / 1e6 / used:.0f} MB for each second "
            f"of a core; the largest process so far {after.ru_maxrss / 1e3:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
