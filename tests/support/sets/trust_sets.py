"""Small real label sets that tests damage, in memory or in a folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from PIL import Image

import slg_wds
from slg_wds.errors import NotFoundError, OutOfRangeError
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.shards.shard import Shard
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.opening import labels_in
from slg_wds.store.base import Data, Entry, Store, buffers, too_large
from slg_wds.verification.problems import ShardReport
from slg_wds.verification.shard import ShardChecks
from support.models.names import TINY

CROPS, SIDE = 12, 72
Objects = dict[str, bytes]
Content = list[tuple[str, bytes, bytes | None]]  # key, record and image of each sample


class MemoryStore(Store):
    """A store over a dictionary of objects, which a test may change."""

    def __init__(self, objects: Objects) -> None:
        self.objects, self.url = objects, "memory"

    def read(self, name: str, max_bytes: int = 1 << 31) -> bytes:
        if name not in self.objects:
            raise NotFoundError("no such object", url=self.url_of(name))
        if len(self.objects[name]) > max_bytes:
            raise too_large(len(self.objects[name]), max_bytes, self.url_of(name))
        return self.objects[name]

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        data = self.read(name)[offset : offset + size]
        if len(data) != size:
            raise OutOfRangeError("past the end", url=self.url_of(name))
        return data

    def size(self, name: str) -> int | None:
        return len(self.objects[name]) if name in self.objects else None

    def create(self, name: str, data: Data) -> bool:
        made = b"".join(buffers(data))
        return self.objects.setdefault(name, made) is made

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[Entry]:
        return iter(
            Entry(name, len(data), 0.0)
            for name, data in sorted(self.objects.items())
            if name.startswith(prefix) and (deep or "/" not in name[len(prefix) :])
        )

    def delete(self, name: str) -> None:
        self.objects.pop(name, None)

    def check_writable(self) -> None: ...


def small_photographs(photographs: Path, folder: Path, count: int = 8) -> Path:
    """Write `count` of the photographs, at most `SIDE` pixels wide and high, in class folders below folder/train."""
    for path in sorted((photographs / "train").rglob("*.jpg"))[::4][:count]:
        target = folder / "train" / path.relative_to(photographs / "train")
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.thumbnail((SIDE, SIDE))
            image.save(target)
    return folder


def make(images: Path, target: Path, **options: object) -> Path:
    """Label images with the tiny teacher, four to a shard."""
    given = {
        "label_type": "shared_tail_k5",
        "num_crops": CROPS,
        "samples_per_shard": 4,
        "num_seg": 16,
        **options,
    }
    slg_wds.generate(
        slg_wds.GenerateConfig(
            data=str(images), save_path=str(target), teacher_source="private", arch=TINY,
            threads_per_forward=1, **given,
        )
    )  # fmt: skip
    return target


def objects_of(folder: Path) -> Objects:
    """Return the bytes of a set's objects by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def copy_of(folder: Path, target: Path) -> Path:
    """Copy a set or images to a folder that a test may change."""
    shutil.copytree(folder, target)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def opened(objects: Objects) -> LabelSet:
    """Open the set that these objects are."""
    return labels_in(MemoryStore(objects))


def comparable(shard: Shard) -> Content:
    """Return the content of a shard in a form that == compares."""
    return [(sample.record.key, encode_record(sample.record), sample.image) for sample in shard]


def checked(labels: LabelSet, number: int, data: bytes) -> ShardReport:
    """Return what verify finds in these bytes in the place of a shard."""
    return ShardChecks(labels, True, 1 << 27).check(number, data)


def loader_of(folder: Path, images: Path | None, **options: object) -> slg_wds.SoftLabelLoader:
    """Make a loader of all crops of all images in the plan's order, one batch for each shard."""
    given = {"global_batch_size": 4 * CROPS, "crops_per_image": CROPS, "last": "pad", **options}
    return slg_wds.SoftLabelLoader(
        str(folder), None if images is None else str(images), shuffle=False, threads=1, **given
    )


def walked(loader: slg_wds.SoftLabelLoader) -> list[Mapping[str, object]]:
    """Return epoch 0 in a form that == compares."""
    loader.set_epoch(0)
    return [
        {
            "key": batch.key, "crop": batch.crop.tolist(), "target": batch.target.tolist(),
            "mask": batch.mask.tolist(), "images": batch.images.contiguous().numpy().tobytes(),
            "labels": batch.labels.dense().numpy().tobytes(),
        }
        for batch in loader
    ]  # fmt: skip
