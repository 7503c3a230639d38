"""How long a loader of ImageNet's size takes to its first batch, and the memory that it needs.

usage: bench_start.py [--shards 5005] [--images 256] [--crops 16] [--batch-size 1024] [--rounds 3] [--keep FOLDER]

The labels are those of bench_looking.py: 5,005 made-up shards of 256 images. Of the images, which lie in a folder, only
the first batch's are made. Every round is a process of its own: seconds from before the import of slg_wds to the open
loader and to the first batch, and the most memory that the process had, beside a process that only imports torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import bench_looking
from PIL import Image

PROBE = """
import json, resource, sys, time
start = time.perf_counter()
import torch
imported = time.perf_counter()
import slg_wds
memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
torch_alone = memory()
loader = slg_wds.SoftLabelLoader(
    sys.argv[1], sys.argv[2], global_batch_size=int(sys.argv[3]), size=224, interpolation="bilinear"
)
opened = time.perf_counter()
iterator = iter(loader)
batch = next(iterator)
print(json.dumps({"import torch": imported - start, "open": opened - imported, "first batch": time.perf_counter() -
    opened, "GB": memory(), "GB with torch alone": torch_alone, "crops": len(batch)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shards", type=int, default=5005)
    parser.add_argument("--images", type=int, default=256, help="of each shard")
    parser.add_argument("--crops", type=int, default=16, help="of each image")
    parser.add_argument("--batch-size", type=int, default=1024, help="crops, 4 of an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="folder for the set")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        labels = folder / f"set-{options.shards}-{options.images}-{options.crops}"
        if not (labels / "_info.json").exists():
            bench_looking.make(labels, options.shards, options.images, options.crops)
        pictures = Path(scratch) / "pictures"
        lay_out(labels, pictures, options.batch_size)
        command = [sys.executable, "-c", PROBE, str(labels), str(pictures), str(options.batch_size)]
        rounds = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(options.rounds)
        ]
    for name in rounds[0]:
        print(f"{name:<20} {statistics.median(one[name] for one in rounds):.2f}")


def lay_out(labels: Path, pictures: Path, batch_size: int) -> None:
    """Write the images that the loader reads for its first batches: one colour, and the sizes in their records."""
    from slg_wds import SoftLabelLoader, open_labels

    opened = open_labels(str(labels))
    first = opened.plan.paths[0]
    write(pictures / first, (8, 8))  # by which the loader knows the folder
    loader = SoftLabelLoader(
        str(labels), str(pictures), global_batch_size=batch_size, size=224, interpolation="bilinear"
    )
    batches = loader._epochs.epoch(0).batches(0)
    for _ in range(loader._pace.prefetch + 1):
        for sample in next(batches).samples:
            record = loader._context.records.whole(sample.shard, sample.position)[0]
            write(pictures / record.path, record.size)


def write(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size[1], size[0]), "teal").save(path, "jpeg")


if __name__ == "__main__":
    main()
