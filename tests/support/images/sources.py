"""Image sources opened by keywords, and folders and tars of images to open."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from slg_wds.config import SourceConfig
from slg_wds.format.manifest.plan import Plan
from slg_wds.images import FolderSource, ShardSource, open_source

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
Files = list[tuple[str, bytes]]
FILES = (
    "cat/1.jpg",
    "cat/2.JPEG",
    "cat/sub/deeper/3.png",
    "dog/1.webp",
    "dog/.hidden.jpg",
    "dog/a.1.jpg",
    "dog/a.2.jpg",
    "Émile/x y.bmp",
    "cat/notes.txt",
    "cat/Thumbs.db",
    "dog/LICENSE",
    "dog/b.gif",
)
OF_OPEN_SOURCE = ("default_split", "need_targets", "on_error", "left_out")


def fill(root: Path, names: tuple[str, ...] = FILES) -> Path:
    """Write files that hold their own names; return the folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))
    return root


def opened(url: Path | str, **options: Any) -> FolderSource | ShardSource:
    """Call `open_source` with the fields of SourceConfig as keywords."""
    direct = {name: options.pop(name) for name in OF_OPEN_SOURCE if name in options}
    return open_source(str(url), SourceConfig(**options), **direct)


def folder(url: Path | str, **options: object) -> FolderSource:
    source = opened(url, **options)
    assert isinstance(source, FolderSource)
    return source


def planned(source: FolderSource, **options: object) -> dict[str, int]:
    """The target of each path of the source's plan."""
    plan = source.plan(0, 3, **options)  # type: ignore[arg-type]
    return dict(zip(plan.paths, plan.targets.tolist(), strict=True))


def tar_bytes(files: Files, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def samples(first: int, count: int, folder: str = "") -> Files:
    files: Files = []
    for n in range(first, first + count):
        files += [
            (f"{folder}{n:05d}.cls", str(n % 10).encode()),
            (f"{folder}{n:05d}.jpg", b"image %d" % n * n),
        ]
    return files


def shard_set(root: Path, count: int = 3, each: int = 5, prefix: str = "shard") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (root / f"{prefix}-{i:04d}.tar").write_bytes(tar_bytes(samples(i * each, each)))
    return root


def shards(url: Path | str, **options: Any) -> ShardSource:
    source = opened(url, **options)
    assert isinstance(source, ShardSource)
    return source


def images(source: ShardSource, plan: Plan) -> list[bytes]:
    found = []
    for number in range(plan.num_shards):
        read = source.reader(plan, number)
        part = plan.shard(number)
        found += [read(n) for n in range(part.start, part.stop)]
    return found
