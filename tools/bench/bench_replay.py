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
counted (what they make before the first batch is a gift to them). Other work on the machine moves rates, so CPU time
is printed too: of a crop of ours, of the floor, and of the stock transforms alone, on one shard's images in one
process. Labels are made up (500 crops, k=5, float16).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import warnings
from pathlib import Path

from bench_generate import lay_out
from replay_parts.contenders import CPU, STOCK, Contenders, local_contenders, remote_contenders
from replay_parts.labels import make_set
from replay_parts.stock import SIZE


def main() -> None:
    options = parse()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        paths = lay_out(folder / "images", options.images)
        make_set(folder / "images", str(folder / "labels"), options)
        contenders = local_contenders(folder, paths, options)
        with contextlib.ExitStack() as stack:
            if options.s3:
                contenders |= remote_contenders(stack, folder, options)
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


MEMORY: dict[str, int] = {}
Rates = dict[str, dict[int, list[float]]]  # of each contender, by crops per image, in each round


def peak_memory() -> int:
    """Return the largest resident memory of this process, in MiB."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def measured(contenders: Contenders, options: argparse.Namespace) -> Rates:
    chosen = {name: run for name, run in contenders.items() if not options.only or name in options.only}
    rates = {name: {c: [] for c in options.crops} for name in chosen}
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: making the set is over
    MEMORY["before"] = peak_memory()
    for _ in range(options.rounds):
        for c in options.crops:
            for name, run in chosen.items():
                rates[name][c].append(run(c))
    return rates


def report(rates: Rates, options: argparse.Namespace) -> None:
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


def plot(rates: Rates, options: argparse.Namespace) -> None:
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
