"""How close generation comes to the bare teacher, and how far past the original generator.

usage: bench_generate.py [--arch A] [--crops N] [--images N] [--compile] [--precision P] [--aa POLICY] [--reprob P]
                         [--mixup ALPHA] [--cutmix ALPHA] [--output embedding] [--values V] [--min-cosine C]
                         [--bank FILE] [--label_type T] [--max-kl KL] ...

In one run, on the same photographs and teacher, start-up and compilation excluded: crops/s of the bare forward (the
same batch, precision and compilation, nothing else), of our generation end to end, and of the original generator where
--reference names a checkout of it; their ratios, peak memory and bytes per crop. Rounds of the three alternate, and
half of a round's bare forwards run before our generation, half after it, so that a drift of the machine's speed moves
all alike; medians are printed. A machine that others use may change its speed by a fifth within a minute: ask for more
rounds, and look at the rates of each. Beside the wall-clock rates stand crops per second of processor time: on a CPU
that others use at the same time, only the ratio of these means something.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from slg_wds.config import GenerateConfig
from slg_wds.demo.photographs import write_photographs
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation.job import Job
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from slg_wds.generation.worker import work
from slg_wds.labelset.creating import create_labels
from slg_wds.store import Location
from slg_wds.teachers import Ensemble

HERE = Path(__file__).resolve().parent
LABELLER = "slg_wds.demo.teacher:lite0"
TOWER = f"{HERE.parents[1] / 'tests' / 'support' / 'models' / 'towers.py'}:lite0_features"  # without its head


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "photographs"
        lay_out(images, options.images)
        config = config_of(options, images, str(Path(folder) / "labels"))
        job = open_job(Recipe.of(config), save=False)
        threads = options.threads or torch.get_num_threads()
        torch.set_num_threads(threads)
        total = options.images * options.crops
        forwards = max(1, min(options.bare_forwards, -(-total // options.num_seg)) // 2)
        bare(job.teacher, options.num_seg, 3)
        memory = {"loaded": peak()}
        bare_rates, our_rates, original_rates, size = [], [], [], 0.0
        bare_cpu, our_cpu = [], []
        for number in range(options.rounds):
            torch.set_num_threads(threads)
            before = bare(job.teacher, options.num_seg, forwards)
            memory.setdefault("bare forward", peak())
            used = time.process_time()
            rate, size = ours(job, folder, number)
            our_cpu.append(total / (time.process_time() - used))
            our_rates.append(rate)
            memory.setdefault("generation", peak())
            after = bare(job.teacher, options.num_seg, forwards)
            seconds, processor = (a + b for a, b in zip(before, after, strict=True))
            bare_rates.append(2 * forwards * options.num_seg / seconds)
            bare_cpu.append(2 * forwards * options.num_seg / processor)
            if options.reference:
                original_rates.append(original(options, images, Path(folder)))
        report(options, bare_rates, our_rates, original_rates, size, memory)
        used = [a / b for a, b in zip(our_cpu, bare_cpu, strict=True)]
        print(f"generation / bare forward in processor time: {statistics.median(used):.3f}")


def config_of(options: argparse.Namespace, images: Path, save_path: str) -> GenerateConfig:
    return GenerateConfig(
        data=str(images),
        arch=options.arch or (LABELLER if options.output == "labels" else TOWER),
        teacher_source=options.source,
        save_path=save_path,
        num_crops=options.crops,
        num_seg=options.num_seg,
        precision=options.precision,
        compile=options.compile,
        input_size=options.input_size,
        output=options.output,
        label_type=options.label_type,
        max_kl=options.max_kl,
        values=options.values,
        min_cosine=options.min_cosine,
        bank=options.bank,
        workers=options.workers,
        threads_per_forward=options.threads,
        pretrained=True,
        aa=options.aa,
        color_jitter=options.color_jitter,
        reprob=options.reprob,
        mixup=options.mixup,
        cutmix=options.cutmix,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", help="default: EfficientNet-Lite0, for embeddings without its head")
    parser.add_argument("--source", default="private")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--crops", type=int, default=50)
    parser.add_argument("--num_seg", type=int, default=50)
    parser.add_argument("--input_size", type=int)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--output", default="labels", help="labels; or embedding or prototypes, of a teacher without its head"
    )
    parser.add_argument(
        "--label_type",
        default="marginal_smoothing_k5",
        help="lowrank: coded in threads while the teacher works",
    )
    parser.add_argument("--max-kl", type=float, help="largest mean KL of lowrank labels in nats; default 0.1")
    parser.add_argument("--values", help="default: float16, of embeddings int8")
    parser.add_argument("--min-cosine", type=float, help="least mean cosine of low-rank embeddings")
    parser.add_argument("--bank", help="for --output prototypes; the default teacher has 1,280 features")
    parser.add_argument("--aa", help="policy of views")
    parser.add_argument("--color-jitter", type=float, default=0.0)
    parser.add_argument("--reprob", type=float, default=0.0, help="probability of an erased box")
    parser.add_argument("--mixup", type=float, default=0.0, help="alpha of mixup")
    parser.add_argument("--cutmix", type=float, default=0.0, help="alpha of CutMix")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare_forwards", type=int, default=40, help="forwards of a round of the bare loop")
    parser.add_argument("--reference", type=Path, help="checkout of the original (github.com/szq0214/FKD)")
    parser.add_argument("--reference_images", type=int, default=16)
    return parser.parse_args()


def lay_out(folder: Path, count: int) -> list[Path]:
    """Write the demo's photographs, and copies of them up to `count` in all, to class folders of folder/train."""
    paths = write_photographs(folder / "train")
    for number in range(len(paths), count):
        source = paths[number % len(paths)]
        shutil.copy(source, source.with_name(f"{source.stem}_copy{number}.jpg"))
    for path in paths[count:]:
        path.unlink()
    return sorted((folder / "train").rglob("*.jpg"))


def bare(teacher: Ensemble, num_seg: int, forwards: int) -> tuple[float, float]:
    """Return seconds, and seconds of processor time, of the teacher alone, with its input on the device already."""
    device = teacher.device
    inputs = [
        torch.randint(0, 256, (num_seg, size, size, 3), dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
        for size, _ in teacher.inputs
    ]
    with torch.inference_mode():
        teacher.answers(inputs)
        synchronize(device)
        start, used = time.perf_counter(), time.process_time()
        for _ in range(forwards):
            teacher.answers(inputs)
        synchronize(device)
    return time.perf_counter() - start, time.process_time() - used


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ours(job: Job, folder: str, number: int) -> tuple[float, float]:
    """Label all photographs into a new set; return crops per second and bytes per crop."""
    location = Location(str(Path(folder) / f"labels{number}"))
    labels = create_labels(location, job.labels.plan, job.labels.identity, {}, None)
    job = dataclasses.replace(job, labels=labels)
    start = time.perf_counter()
    stats = work(job, None, RunObserver())
    return stats.crops / (time.perf_counter() - start), stats.bytes / stats.crops


def original(options: argparse.Namespace, images: Path, folder: Path) -> float:
    """Return crops per second of the original generator, from the time of its second file to that of its last.

    Runs generate_soft_label.py of the checkout unchanged, with timm.create_model giving the same teacher, and
    DataParallel(...).cuda() replaced by the model itself, since it has no way to run on a CPU.
    """
    few, labels = folder / "few", folder / "original"
    shutil.rmtree(labels, ignore_errors=True)
    if not few.exists():
        for path in sorted((images / "train").rglob("*.jpg"))[: options.reference_images]:
            target = few / "train" / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        shutil.copytree(few / "train", few / "val")
    script = options.reference / "FKD" / "FKD_SLG" / "generate_soft_label.py"
    size = str(options.input_size or 224)
    command = [
        sys.executable,
        str(HERE.parent / "fkd" / "run_original.py"),
        str(script),
        str(few),
        "--save_path",
        str(labels),
    ]
    command += ["-a", "teacher", "--input_size", size, "--num_crops", str(options.crops)]
    command += ["--num_seg", str(options.num_seg), "-b", "1", "-j", str(options.workers or 2)]
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    times = sorted(path.stat().st_mtime for path in labels.rglob("*.tar"))
    return (len(times) - 1) * options.crops / (times[-1] - times[0]) if len(times) > 1 else float("nan")


def peak() -> float:
    """Return the largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def report(options, bare_rates, our_rates, original_rates, size, memory) -> None:
    ratios = [a / b for a, b in zip(our_rates, bare_rates, strict=True)]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {threading.active_count()} python threads"
    )
    print(
        f"{options.images} photographs x {options.crops} crops, forwards of {options.num_seg}, {options.precision}"
        f"{', compiled' if options.compile else ''}"
    )
    for name, rates in {
        "bare forward": bare_rates,
        "generation": our_rates,
        "original": original_rates,
    }.items():
        if rates:
            print(
                f"{name:14} {statistics.median(rates):10.1f} crops/s   rounds {' '.join(f'{r:.1f}' for r in rates)}"
            )
    print(f"generation / bare forward: {statistics.median(ratios):.3f}")
    if original_rates:
        against = [a / b for a, b in zip(our_rates, original_rates, strict=True)]
        print(f"generation / original: {statistics.median(against):.2f}")
    print(f"bytes/crop: {size:.2f}")
    print("peak memory, GB: " + ", ".join(f"{name} {gigabytes:.2f}" for name, gigabytes in memory.items()))


if __name__ == "__main__":
    main()
