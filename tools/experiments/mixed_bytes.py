"""What mixing does to the bytes of labels: one teacher and the same boxes, with and without mixup and CutMix.

usage: mixed_bytes.py [--images N] [--crops M] [--max-kl KL] [--folder DIR]

EfficientNet-Lite0 labels photographs as low-rank labels and as top-5, without mixing, with each kind and with both. The
table has the bytes a crop of labels and of views (boxes and flips apart), and of low-rank labels how many classes are
kept and how many coefficients a crop has. Partners show other classes than the image, which low rank has to follow.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
from bench_generate import lay_out
from students import table, table_row
from teacher_labels import generated, working_folder

import slg_wds
from slg_wds.format.records.decoding import unpack_record
from slg_wds.inspection.low_rank import coded_images
from slg_wds.inspection.sizes import of_record

HEADER = ("labels", "mixing", "label bytes a crop", "view bytes a crop", "classes kept", "rank")
TEACHER = "slg_wds.demo.teacher:lite0"
MIXES: dict[str, dict[str, float]] = {
    "none": {},
    "mixup": {"mixup": 0.8},
    "CutMix": {"cutmix": 1.0},
    "both": {"mixup": 0.8, "cutmix": 1.0},
}
APART = ("boxes", "flips", "record's rest")
VIEWS = ("operations", "arguments", "erased", "erased_boxes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--crops", type=int, default=100)
    parser.add_argument("--max-kl", type=float, default=0.1)
    parser.add_argument("--folder", type=Path, help="keep the sets here; default: a temporary folder")
    args = parser.parse_args()
    with working_folder(args) as folder:
        lay_out(folder / "images", args.images)
        print(f"{args.images} images x {args.crops} crops")
        print(table(HEADER, []))
        kinds = {
            f"lowrank {args.max_kl:g}": {"label_type": "lowrank", "max_kl": args.max_kl},
            "top-5, log8": {"label_type": "marginal_smoothing_k5", "values": "log8"},
        }
        for kind, options in kinds.items():
            for mix, mixing in MIXES.items():
                target = folder / f"{options['label_type']}-{mix}"
                more = {"samples_per_shard": 64, **options, **mixing}
                url = generated(folder / "images", target, TEACHER, args.crops, **more)
                print(table_row([kind, mix, *measured(url)]), flush=True)


def measured(url: str) -> list[str]:
    """Return the cells of a set: bytes of labels and views, classes kept and rank."""
    labels, crops = slg_wds.open_labels(url), 0
    sums: Counter[str] = Counter()
    records = []
    for number in range(labels.num_shards):
        for position in range(len(labels.index(number).records)):
            data = labels.record_bytes(number, position)
            records.append(unpack_record(data))
            sums.update(of_record(records[-1], len(data)))
            crops += records[-1]["num_crops"]
    views = sum(size for name, size in sums.items() if name in VIEWS or name.startswith("mix"))
    answers = sum(sums.values()) - views - sum(sums[name] for name in APART)
    shapes = [shape for image in coded_images(records) for shape in image.shapes]
    kept = f"{statistics.mean(shape.kept for shape in shapes):.0f}" if shapes else ""
    rank = f"{statistics.mean(shape.rank for shape in shapes):.1f}" if shapes else ""
    return [f"{answers / crops:.2f}", f"{views / crops:.2f}", kept, rank]


if __name__ == "__main__":
    main()
