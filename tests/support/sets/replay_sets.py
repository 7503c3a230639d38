"""Label sets for the loader's tests, made by the tiny teacher from the session's photographs."""

from __future__ import annotations

import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import slg_wds
from slg_wds.images import decode
from slg_wds.replay.cache.shard_cache import ShardCache
from slg_wds.store import open_store
from slg_wds.transforms.crops import cut
from support.models.names import TINY

NUM_CROPS = 12


@dataclass(frozen=True)
class Made:
    """A label set and the place of its images (None: embedded)."""

    labels: str
    images: str | None

    def loader(self, **options):
        defaults = {"images": self.images, "global_batch_size": 24, "crops_per_image": 2, "threads": 2}
        return slg_wds.SoftLabelLoader(self.labels, **{**defaults, **options})


def tiny_run(data: Path | str, target: Path | str, **options) -> slg_wds.GenerateConfig:
    """Describe a run of the tiny teacher in one process: forwards of 16 crops, shards of 5 images."""
    defaults = {
        "teacher_source": "private", "arch": TINY, "num_crops": NUM_CROPS, "num_seg": 16,
        "samples_per_shard": 5, "threads_per_forward": 1,
    }  # fmt: skip
    return slg_wds.GenerateConfig(data=str(data), save_path=str(target), **{**defaults, **options})


def make(data: Path | str, target: Path | str, **options) -> str:
    slg_wds.generate(tiny_run(data, target, **options))
    return str(target)


def write_class_map(photographs: Path, path: Path) -> str:
    """Number the class folders in the order of their names, in a file for --class-map; return its path."""
    names = sorted(folder.name for folder in (photographs / "train").iterdir())
    path.write_text("".join(f"{name} {number}\n" for number, name in enumerate(names)))
    return str(path)


def pack(photographs: Path, folder: Path) -> Path:
    """Write the photographs as WebDataset tars of 8 images with targets."""
    folder.mkdir(parents=True)
    paths = sorted((photographs / "train").rglob("*.jpg"))
    for first in range(0, len(paths), 8):
        with tarfile.open(folder / f"pictures-{first // 8:04d}.tar", "w") as tar:
            for path in paths[first : first + 8]:
                tar.add(path, f"{path.parent.name}_{path.stem}.jpg")
    return folder


def three_places(photographs: Path, folder: Path) -> dict[str, Made]:
    """Label the photographs three times: with embedded images, from their folder, and from tars."""
    tars = pack(photographs, folder / "tars")
    return {
        "embedded": Made(make(photographs, folder / "embedded", embed_images="original"), None),
        "folder": Made(make(photographs, folder / "folder"), str(photographs)),
        "tars": Made(make(tars, folder / "tarlabels"), str(tars)),
    }


def truth(labels: str, images: str | None) -> dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]]:
    """Map (key, crop) to (pixels as generation cut them, dense label), read from whole shards and whole images."""
    opened = slg_wds.open_labels(labels)
    found = {}
    teacher = opened.identity["teachers"][0]
    size = teacher["input_size"]
    for number in range(opened.num_shards):
        part, read = opened.plan.shard(number), None
        if images is not None:
            read = slg_wds.images.open_source(images).reader(opened.plan, number)
        for at, sample in enumerate(opened.shard(number)):
            record = sample.record
            pixels = decode(sample.image if read is None else read(part.start + at))
            out = torch.empty((len(record.crops), size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
            cut(pixels, record.crops, record.flips, out, teacher["interpolation"])
            dense = torch.from_numpy(record.distribution(None, opened.label_type))
            for crop in range(len(out)):
                found[record.key, crop] = (out[crop].clone(), dense[crop])
    return found


def comparable(batches) -> list[tuple]:
    """Return the content of batches in a form that == compares: keys, crops, targets, bytes of pixels and labels."""
    return [
        (
            tuple(batch.key), tuple(batch.crop.tolist()), tuple(batch.target.tolist()), tuple(batch.mask.tolist()),
            batch.images.contiguous().numpy().tobytes(), batch.labels.dense().numpy().tobytes(),
        )
        for batch in batches
    ]  # fmt: skip


def upload(folder: str, url: str, options) -> None:
    """Upload every file below a folder."""
    source, store = open_store(folder), open_store(url, options)
    for entry in source.list():
        assert store.create(entry.name, source.read(entry.name))


def cached_shards(folder: Path) -> list[Path]:
    """Return the shards in the cache of a test's folder."""
    return sorted((folder / "cache").glob("slg-*.tar"))


def settle(loader: slg_wds.SoftLabelLoader, most: float = 1.0) -> None:
    """Wait until the loader's caches have downloaded all that they may download by now, at most `most` seconds."""
    end = time.monotonic() + most
    while time.monotonic() < end and not all(map(_settled, loader._context.caches.in_use)):
        time.sleep(0.005)


def _settled(cache: ShardCache) -> bool:
    with cache._changed:
        may_begin = cache._open and cache._free and cache._queue
        return not may_begin and all(number in cache._ready for number in cache._needed)


def slowly(loader: slg_wds.SoftLabelLoader) -> list[tuple]:
    """The content of an epoch; after each batch, the downloads that may begin are awaited."""
    seen = []
    for batch in loader:
        seen += comparable([batch])
        settle(loader)
    return seen
