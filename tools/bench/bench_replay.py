"""How close replay comes to bare decoding and resizing, and how far past other loaders.

usage: bench_replay.py [--images N] [--threads T] [--crops 1 4 8] [--rounds R] [--reference FKD_CHECKOUT] [--s3] ...

In one run, on the same photographs and with as many workers as threads, crops/s of

  floor        a thread pool that only decodes and resizes, with our kernels, bytes and boxes in memory before
  one call     the same with decoding and cutting of an image in one call of compiled code, as our loader does them
  ours         SoftLabelLoader from local shards with embedded images
  ours, s3     the same from a SeaweedFS server on loopback: the first, cold epoch, and a later one (--s3)
  webdataset   stock WebDataset + DataLoader with random crops and no labels: Pillow, and torchvision v2 on tensors
  FKD          the original's ImageFolder_FKD + DataLoader on label files written here (--reference DIR)

With --mixed, a share of our crops has another image mixed in, half by mixup and half by CutMix, each from one of 4
partners of its image; the stock pipelines mix nothing. With --only ours, the peak memory is that of our loader.

With --aa and --reprob, our crops are recorded views, and those of WebDataset are drawn by the same policy of the
library: timm's or torchvision's on Pillow images, torchvision's RandAugment on tensors where the policy is timm's.

Rounds of all alternate, so that a drift of the machine's speed moves all alike. The floor's and our rates are over
whole epochs; those of loaders with processes are from the first batch to the last, so that starting these is not
counted (what they make while the first is waited for is a gift to them). Beside the rates, since other work on the
machine moves them: the CPU time that a crop costs us, the floor, and the transforms of the stock pipelines alone (one
shard's images in one process, without what processes cost them). Labels are made up (500 crops, k=5, float16).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
import warnings
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_generate import lay_out
from stock_pipelines import MEAN, SIZE, Crops, pillow_crops, tensor_crops

from slg_wds import LabelSet, SoftLabelLoader, open_labels
from slg_wds.format.manifest.description import MIXING, VIEWS
from slg_wds.format.records.record import Record
from slg_wds.format.shards.shard import Sample
from slg_wds.images import decode, image_size, open_source
from slg_wds.labelset.creating import create_labels
from slg_wds.replay.assembly.jpeg_crops import cut_jpegs
from slg_wds.replay.sources.files import Contents
from slg_wds.store import Location
from slg_wds.transforms.crops import CropRule, cut, sample_crops
from slg_wds.transforms.policies.drawing import sample_views
from slg_wds.transforms.policies.grammar import parse_views
from slg_wds.transforms.policies.rules import ViewRule
from support.sets.mixed_sets import drawn_mixing, plain_views

CLASSES, K, SEED = 1000, 5, 0
PARTNERS = 4  # images that are mixed into the crops of one
STOCK = {"tensor": "webdataset, torchvision v2", "Pillow": "webdataset, Pillow"}
TRAIN_IMAGES = 32  # images of a batch


def main() -> None:
    options = parse()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        paths = lay_out(folder / "images", options.images)
        make_set(folder / "images", str(folder / "labels"), options)
        contenders = contestants(folder, paths, options)
        with contextlib.ExitStack() as stack:
            if options.s3:
                contenders |= remote(stack, folder, options)
            rates = measured(contenders, options)
    report(rates, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--crops", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-crops", type=int, default=500)
    parser.add_argument("--samples-per-shard", type=int, default=64)
    parser.add_argument("--aa", help="policy of views: rand-..., ra-n2-m9 or trivialaugment")
    parser.add_argument("--reprob", type=float, default=0.0, help="probability of an erased box")
    parser.add_argument(
        "--mixed", type=float, default=0.0, help="share of our views with another image mixed in"
    )
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--only", nargs="+", help="names of contenders")
    parser.add_argument("--scratch", help="folder for temporary files")
    parser.add_argument("--plot", default="bench_replay.png")
    parser.add_argument("--json", help="file for all rates")
    return parser.parse_args()


def made_up(
    key: str, path: str, target: int, size: tuple[int, int], num_crops: int, rule: ViewRule | None = None
) -> Record:
    boxes, flips = sample_crops(SEED, key, size, num_crops, CropRule())
    rng = np.random.default_rng(len(key))
    index = np.argsort(rng.random((num_crops, 64)), axis=1)[:, :K]
    value = -np.sort(-rng.dirichlet(np.full(K + 1, 0.3), num_crops)[:, :K], axis=1)
    return Record(
        key,
        path,
        target,
        size,
        boxes,
        flips,
        index,
        value.astype(np.float32),
        None,
        "float16",
        False,
        CLASSES,
        views=None if rule is None else sample_views(SEED, key, num_crops, rule),
    )


def make_set(images: Path, url: str, options: argparse.Namespace, store_options=None) -> None:
    source = open_source(str(images))
    plan = source.plan(SEED, options.samples_per_shard)
    teacher = {"arch": "none", "input_size": SIZE, "interpolation": "bicubic", "weight": 1.0}
    identity = {
        "teachers": [teacher], "label_type": f"marginal_smoothing_k{K}", "k": K, "values": "float16",
        "tail_classes": 0, "num_classes": CLASSES, "num_crops": options.num_crops, "seed": SEED,
        "embed_images": {"max_side": None, "quality": 90},
    }  # fmt: skip
    rule = parse_views(options.aa, 0.0, options.reprob)
    rule = None if rule is None else rule.with_mean(MEAN)
    requires = [] if rule is None else [VIEWS]
    if options.mixed:
        requires = [VIEWS, MIXING]
    rng = np.random.default_rng(SEED)
    labels = create_labels(Location(url, store_options or {}), plan, identity, {}, None, requires)
    for number in range(plan.num_shards):
        part, samples = plan.shard(number), []
        read = source.reader(plan, number)
        for at, (key, path, target) in enumerate(zip(part.keys, part.paths, part.targets, strict=True)):
            data = read(part.start + at)
            record = made_up(key, path, int(target), image_size(data, path), options.num_crops, rule)
            record = dataclasses.replace(record, image_crc32=zlib.crc32(data))
            if options.mixed:
                others = [other for other in range(part.start, part.stop) if other != part.start + at]
                record = mixed_up(record, rng.choice(others, PARTNERS).tolist(), rng, options.mixed)
            samples.append(labels.encode_sample(Sample(record, data, "jpg")))
        labels.commit(number, labels.encode_shard(number, samples, [], {}))
    labels.finish()


def mixed_up(record: Record, partners: list[int], rng: np.random.Generator, share: float) -> Record:
    views = record.views or plain_views(record.num_crops)
    mixing = drawn_mixing(record.num_crops, partners, rng, share)
    return dataclasses.replace(record, views=dataclasses.replace(views, mixing=mixing))


def contestants(folder: Path, paths: list[Path], options: argparse.Namespace):
    """Return the contenders: each takes crops per image and returns crops per second."""
    labels = str(folder / "labels")
    threads = options.threads
    found = {
        "floor": Floor("floor", decode_and_cut, labels, threads),
        "one call": Floor("one call", cut_in_one_call, labels, threads),
        "ours": Ours(labels, threads),
        STOCK["tensor"]: lambda c: stock(STOCK["tensor"], labels, options, c, tensor_crops),
        STOCK["Pillow"]: lambda c: stock(STOCK["Pillow"], labels, options, c, pillow_crops),
    }
    if options.reference:
        write_original(folder, paths, options)
        found["FKD"] = lambda c: original(folder, options, c)
    return found


def decode_and_cut(image: bytes, size, boxes, flips, out: torch.Tensor) -> None:
    cut(decode(image), boxes, flips, out, "bicubic")


def cut_in_one_call(image: bytes, size, boxes, flips, out: torch.Tensor) -> None:
    sizes, first = np.array([size]), np.zeros(1, np.int64)
    if cut_jpegs(Contents([image], [None]), sizes, boxes[None], flips[None], out, first, "bicubic") != [True]:
        raise SystemExit("a photograph that takes more than one call")


class Floor:
    """Only decode and resize, in threads that each have their own memory."""

    def __init__(self, name: str, make, labels: str, threads: int) -> None:
        self.name, self.make, self.threads = name, make, threads
        opened = open_labels(labels)
        self.samples = []
        for number in range(opened.num_shards):
            for sample in opened.shard(number):
                record = sample.record
                self.samples.append((sample.image, record.size, record.crops[:8], record.flips[:8]))
        self.pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        self(1)  # the first calls of torch's operators take seconds
        CPU.clear()

    def __call__(self, c: int) -> float:
        before = torch.get_num_threads()
        start, used = time.perf_counter(), time.process_time()
        list(self.pool.map(self.part, range(self.threads), itertools.repeat(c)))
        torch.set_num_threads(before)
        crops = len(self.samples) * c
        CPU[self.name, c].append((time.process_time() - used) / crops)
        return crops / (time.perf_counter() - start)

    def part(self, worker: int, c: int) -> None:
        out = torch.empty((c, SIZE, SIZE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        for image, size, boxes, flips in self.samples[worker :: self.threads]:
            self.make(image, size, boxes[:c], flips[:c], out)


class Ours:
    """SoftLabelLoader: one for each number of crops, kept over rounds as it would be over epochs."""

    name = "ours"

    def __init__(self, labels: str, threads: int, **more) -> None:
        self.labels, self.threads, self.more = labels, threads, more
        self.loaders = {}

    def __call__(self, c: int) -> float:
        if c not in self.loaders:
            self.loaders[c] = SoftLabelLoader(
                self.labels,
                global_batch_size=TRAIN_IMAGES * c,
                crops_per_image=c,
                threads=self.threads,
                **self.more,
            )
        start, used = time.perf_counter(), time.process_time()
        crops = sum(len(batch) for batch in self.loaders[c])
        if not self.more:
            CPU[self.name, c].append((time.process_time() - used) / crops)
        return crops / (time.perf_counter() - start)


CPU = defaultdict(list)  # (contender, crops per image) -> CPU seconds a crop


MEMORY: dict[str, int] = {}


def peak_memory() -> int:
    """Return the largest resident memory of this process, in MiB."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def rate(batches, crops: int) -> float:
    """Return crops per second, from the first batch to the last."""
    iterator = iter(batches)
    next(iterator)
    start = time.perf_counter()
    count = sum(1 for _ in iterator)
    return crops * count / (time.perf_counter() - start)


def stock(name: str, labels: str, options: argparse.Namespace, c: int, make) -> float:
    import torchvision.io  # noqa: F401  # the decoder's operators
    import webdataset

    opened = open_labels(labels)
    tars = [str(Path(labels) / opened.shard_name(number)) for number in range(opened.num_shards)]
    data = (
        webdataset.WebDataset(tars, shardshuffle=len(tars), empty_check=False)
        .to_tuple("jpg", "cls")
        .map_tuple(Crops(*make(options), c), int)
    )
    loader = torch.utils.data.DataLoader(
        data, TRAIN_IMAGES, num_workers=options.threads, drop_last=True, prefetch_factor=2
    )
    CPU[name, c].append(alone(Crops(*make(options), c), opened) / c)
    return rate(loader, TRAIN_IMAGES * c)


def alone(crops: Crops, opened: LabelSet) -> float:
    """Return the CPU seconds of an image in this process: no start of others, nothing sent between them."""
    before, images = torch.get_num_threads(), [sample.image for sample in opened.shard(0)]
    torch.set_num_threads(1)
    crops(images[0])  # the first calls of some operators take long
    used = time.process_time()
    for image in images:
        crops(image)
    torch.set_num_threads(before)
    return (time.process_time() - used) / len(images)


def write_original(folder: Path, paths: list[Path], options: argparse.Namespace) -> None:
    """Write label files as the original does: boxes as fractions, flips, and classes and values of each crop."""
    for path in paths:
        record = made_up(path.stem, path.name, 0, image_size(path.read_bytes()), options.num_crops)
        height, width = record.size
        boxes = torch.from_numpy(record.crops / np.array([height, width, height, width])).float()
        output = torch.stack([torch.from_numpy(record.index).float(), torch.from_numpy(record.value)], dim=1)
        target = (folder / "fkd" / "/".join(path.parts[-3:])).with_suffix(".tar")
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save([boxes, torch.from_numpy(record.flips), output], target)


def original(folder: Path, options: argparse.Namespace, c: int) -> float:
    sys.path.insert(0, str(options.reference / "FKD"))
    import utils_FKD
    from torchvision import transforms

    transform = utils_FKD.Compose_FKD(
        transforms=[
            utils_FKD.RandomResizedCrop_FKD(size=SIZE, interpolation="bilinear"),
            utils_FKD.RandomHorizontalFlip_FKD(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = utils_FKD.ImageFolder_FKD(
        root=str(folder / "images" / "train"),
        transform=transform,
        num_crops=c,
        softlabel_path=str(folder / "fkd"),
    )
    loader = torch.utils.data.DataLoader(
        data, TRAIN_IMAGES, shuffle=True, num_workers=options.threads, drop_last=True
    )
    return rate(loader, TRAIN_IMAGES * c)


def remote(stack: contextlib.ExitStack, folder: Path, options: argparse.Namespace):
    from support.servers.s3 import running_s3

    os.environ["NO_PROXY"] = "127.0.0.1"
    server = stack.enter_context(running_s3())
    url, keys = f"{server.url}/bench", server.options()
    make_set(folder / "images", url, options, keys)
    more = {"store_options": keys, "cache_bytes": 8 << 30}
    runs = itertools.count()

    def cold(c: int) -> float:
        cache = folder / f"cold{next(runs)}"
        value = Ours(url, options.threads, cache_dir=str(cache), **more)(c)
        shutil.rmtree(cache)
        return value

    warm = Ours(url, options.threads, cache_dir=str(folder / "warm"), **more)
    for c in options.crops:
        warm(c)
    return {"ours, s3, cold": cold, "ours, s3, cached": warm}


def measured(contenders, options: argparse.Namespace) -> dict[str, dict[int, list[float]]]:
    chosen = {name: run for name, run in contenders.items() if not options.only or name in options.only}
    rates = {name: {c: [] for c in options.crops} for name in chosen}
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: making the set is over
    MEMORY["before"] = peak_memory()
    for _ in range(options.rounds):
        for c in options.crops:
            for name, run in chosen.items():
                rates[name][c].append(run(c))
    return rates


def report(rates: dict[str, dict[int, list[float]]], options: argparse.Namespace) -> None:
    print(
        f"{options.images} photographs at {SIZE}, {options.threads} threads or workers, {options.rounds} rounds"
    )
    print(f"{'crops/s (of ours)':30}" + "".join(f"{f'{c} crops/image':>22}" for c in options.crops))
    for name, by_crops in rates.items():
        cells = []
        for c in options.crops:
            ratio = statistics.median(a / b for a, b in zip(rates["ours"][c], by_crops[c], strict=True))
            cells.append(f"{statistics.median(by_crops[c]):12,.0f} (x{ratio:6.3f})")
        print(f"{name:30}" + "".join(f"{cell:>22}" for cell in cells))
    print("in brackets: ours / this, the median of the rounds' ratios")
    for c in options.crops:
        ours = CPU["ours", c]
        if ours:
            print(f"{c} crops/image: ours {statistics.median(ours) * 1e6:.0f} us of CPU time a crop")
        for name in ("floor", "one call", *STOCK.values()):
            if ours and CPU[name, c]:
                least, all_of_it = (statistics.median(times) * 1e6 for times in (CPU[name, c], ours))
                print(
                    f"{c} crops/image: {all_of_it:.0f} us of CPU time a crop, {name} {least:.0f}: "
                    f"{least / all_of_it:.3f} of ours, {(all_of_it - least) * c:.0f} us more an image"
                )
    print(f"memory of this process: {MEMORY['before']:,} MiB before, at most {peak_memory():,} MiB since")
    if options.json:
        Path(options.json).write_text(json.dumps(rates, indent=1))
    plot(rates, options)


def plot(rates: dict[str, dict[int, list[float]]], options: argparse.Namespace) -> None:
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    width = 0.8 / len(rates)
    for number, (name, by_crops) in enumerate(rates.items()):
        places = [at + number * width for at in range(len(options.crops))]
        axes.bar(places, [statistics.median(by_crops[c]) for c in options.crops], width, label=name)
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(options.crops))])
    axes.set_xticklabels([f"{c} crops/image" for c in options.crops])
    axes.set_ylabel(f"crops/s at {SIZE} px, {options.threads} threads")
    axes.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(options.plot, dpi=150)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
