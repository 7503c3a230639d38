"""Each contender: it takes crops per image, walks over all images, and returns crops per second."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from replay_parts.labels import made_up, make_set
from replay_parts.stock import SIZE, Crops, pillow_crops, tensor_crops
from slg_wds import LabelSet, SoftLabelLoader, open_labels
from slg_wds.images import decode, image_size
from slg_wds.replay.assembly.jpeg_crops import cut_jpegs
from slg_wds.replay.sources.files import Contents
from slg_wds.transforms.crops import cut

STOCK = {"tensor": "webdataset, torchvision v2", "Pillow": "webdataset, Pillow"}
TRAIN_IMAGES = 32  # images of a batch
CPU = defaultdict(list)  # (contender, crops per image) -> CPU seconds a crop

Contenders = dict[str, Callable[[int], float]]


def local_contenders(folder: Path, paths: list[Path], options: argparse.Namespace) -> Contenders:
    """Return all contenders but those that read from S3."""
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


def remote_contenders(stack: contextlib.ExitStack, folder: Path, options: argparse.Namespace) -> Contenders:
    """Copy the set to a server that ends with the stack; return our loader with a cold and with a warm cache."""
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
