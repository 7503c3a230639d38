"""What a machine with a fast GPU and many cores would do, from a machine that has neither.

usage: simulate_gpu.py generation [--threads N] [--rate CROPS/S] [--num_seg N] [--launch eager|compiled|graph] ...
       simulate_gpu.py replay [--threads N ...] [--crops 1 4 8] [--rate CROPS/S] ...     (simulate_replay.py tells more)

The real code of `slg-wds generate` runs: worker loop, reading, batching, threads, inference, collation, encoding and
commit. Only what takes processor or GPU time elsewhere is replaced:

- A cutting thread passes its arguments to a compiled function that does nothing, then sleeps for as long as the crops
  would take. So does a decoding thread, unless --decode_ms is 0: then it decodes. So 16 threads need no 16 cores.
- The forward launches real operators of torch on tiny tensors, as many as ResNet-50 has: `eager` 159 under autocast,
  `compiled` 165 from generated Python, `graph` one. All operators after it are real, on 8 classes.
- The GPU is a clock: a forward ends `num_seg / rate` seconds after it was launched, or after the one before ended.

What is measured is how 16 threads and the launching thread compete for the interpreter. That is the limit where the GPU
is fast enough.

Limits. Trust ratios, and figures only as far as the interpreter of this machine is like the other's. Not simulated:
the bandwidth of memory and of PCIe, the caches that cutting threads share, CUDA's own locks, the time of a real launch
(a tiny operator stands for it), clocks that fall when all cores are busy, the disk. What really runs here (all Python,
launches, encoding) must fit the cores of this machine. "cpu" in the output says how many it used; above 1, a machine
with more cores is faster than the figure says.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import simulate_replay
import torch
from simulated import exact_sleeps, photographs
from torch import nn

from slg_wds.config import GenerateConfig
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from slg_wds.generation.worker import work
from slg_wds.labels import reduce
from slg_wds.transforms.cutting import scripted

SIDE, CLASSES = 224, 8
CUT_US = 170.0  # microseconds to cut, resize and flip a crop of 224 pixels: 4,000 to 6,000 crops/s a core
DECODE_MS = 1.0  # milliseconds to decode a JPEG of 500 x 375 pixels
DEVICE = torch.device("cuda")  # a name only: nothing asks torch for this device


class GpuClock:
    """A GPU of which only the time is known at which it will have done everything that was launched."""

    def __init__(self) -> None:
        self.done = 0.0

    def launched(self, seconds: float) -> None:
        """Add work that takes so many seconds."""
        self.done = max(self.done, time.perf_counter()) + seconds

    def event(self, blocking: bool = False) -> Any:
        """Return an event of torch.cuda, recorded when `record` is called."""
        return _Event(self)


class _Event:
    def __init__(self, gpu: GpuClock) -> None:
        self._gpu, self._time = gpu, 0.0

    def record(self, stream: Any = None) -> None:
        self._time = self._gpu.done

    def query(self) -> bool:
        return self._time <= time.perf_counter()

    def synchronize(self) -> None:
        if (left := self._time - time.perf_counter()) > 0:
            time.sleep(left)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = (
            nn.Conv2d(1, 1, 1, bias=False),
            nn.BatchNorm2d(1),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.norm(self.conv(x)))  # type: ignore[no-any-return]


def launches() -> dict[str, Callable[[], None]]:
    """Return functions that launch a forward of ResNet-50's number of operators, by how it is run."""
    net = nn.Sequential(*[_Block() for _ in range(53)]).eval().requires_grad_(False)
    pixel, weight, few = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.zeros(4)

    def eager() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            net(pixel)

    def compiled() -> None:
        for _ in range(55):
            torch.nn.functional.conv2d(pixel, weight)
            torch.relu_(few)
            torch.add(few, few)

    def graph() -> None:
        torch.relu_(few)

    return {"eager": eager, "compiled": compiled, "graph": graph}


def no_cut(
    pixels: torch.Tensor, boxes: list[list[int]], flips: list[bool], out: torch.Tensor, kernel: int
) -> None:
    """Take what `cut_image` takes."""
    return


no_cut = scripted(no_cut)


def factory() -> nn.Module:
    """Return a teacher of a few classes, for its options and preprocessing; its forward is replaced."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES))
    model.pretrained_cfg = {"input_size": (3, SIDE, SIDE), "interpolation": "bicubic"}
    return model


@dataclass(frozen=True)
class Setting:
    """One simulated run of generation.

    Attributes:
        threads: cutting threads.
        rate: crops per second that the GPU's forward can do.
        num_seg: crops in one forward.
        launch: how the forward is launched: eager, compiled or graph.
        images, crops: images of the run, and crops of each.
        cut_us: microseconds to cut a crop.
        decode_ms: milliseconds to decode an image; 0: decode in earnest.
    """

    threads: int = 16
    rate: float = 10_000.0
    num_seg: int = 256
    launch: str = "compiled"
    images: int = 64
    crops: int = 500
    cut_us: float = CUT_US
    decode_ms: float = DECODE_MS


@dataclass(frozen=True)
class Result:
    """What a run did.

    Attributes:
        crops_per_second: from the first batch of labels to the last.
        of_gpu: the same as a share of the GPU's rate.
        launch_ms, alone_ms: mean milliseconds of a launch in the run, and with no other thread.
        cpu: processor time over time: how many cores of this machine the run used.
    """

    crops_per_second: float
    of_gpu: float
    launch_ms: float
    alone_ms: float
    cpu: float


def generation(setting: Setting, folder: Path) -> Result:
    """Simulate a run of `slg-wds generate`.

    Args:
        setting: the machine and the run.
        folder: an empty folder for photographs and labels.
    """
    exact_sleeps()
    photographs(folder / "images", setting.images)
    config = GenerateConfig(
        data=str(folder / "images"), save_path=str(folder / "labels"), teacher_source="private",
        arch=f"{__file__}:factory", num_crops=setting.crops, num_seg=setting.num_seg, workers=setting.threads,
        threads_per_forward=1, samples_per_shard=setting.images, label_type="shared_tail_k5", values="log8",
        tail_classes=2,
    )  # fmt: skip
    job = open_job(Recipe.of(config), "cpu")
    gpu, times = GpuClock(), []
    launch = launches()[setting.launch]
    alone = _seconds(launch)
    job.teacher.device = job.teacher.teachers[0].device = DEVICE
    logits = torch.randn(setting.num_seg, CLASSES)

    def forward(images: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        launch()
        times.append(time.perf_counter() - start)
        gpu.launched(len(images) / setting.rate)
        return logits

    job.teacher.teachers[0]._run = forward
    meter = _Meter()
    with replaced(gpu, setting):
        work(job, None, meter)
    return meter.result(setting, sum(times) / len(times), alone)


class _Meter(RunObserver):
    def __init__(self) -> None:
        self.seen: list[tuple[float, float, int]] = []

    def crops(self, count: int) -> None:
        self.seen.append((time.perf_counter(), time.process_time(), count))

    def result(self, setting: Setting, launch: float, alone: float) -> Result:
        # The first labels come when the pipeline is full; what came before is its start.
        seconds, used = (self.seen[-1][n] - self.seen[0][n] for n in (0, 1))
        rate = sum(count for _, _, count in self.seen[1:]) / seconds
        return Result(rate, rate / setting.rate, launch * 1e3, alone * 1e3, used / seconds)


@contextlib.contextmanager
def replaced(gpu: GpuClock, setting: Setting) -> Iterator[None]:
    """Replace the kernels of the processor and the GPU, and nothing else."""

    def cut(pixels: Any, boxes: Any, flips: Any, out: Any, kernel: int) -> None:
        no_cut(pixels, boxes, flips, out, kernel)
        time.sleep(setting.cut_us * 1e-6 * len(flips))

    def allocate(buffers: Any, size: int) -> torch.Tensor:
        return torch.empty((buffers.num_seg, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)

    here = SimpleNamespace(wait_event=lambda event: None)
    with contextlib.ExitStack() as stack:
        replace = lambda *given: stack.enter_context(mock.patch(*given))  # noqa: E731
        replace("slg_wds.transforms.cutting.scripted_cut", cut)
        replace("slg_wds.generation.batching.Buffers._allocate", allocate)
        # What a GPU does: without a look for ties, for which the host would wait.
        replace("slg_wds.generation.inference.topk", reduce._packed_topk)
        replace("torch.cuda.Event", gpu.event)
        replace("torch.cuda.Stream", lambda device: here)
        replace("torch.cuda.stream", lambda stream: contextlib.nullcontext())
        replace("torch.cuda.current_stream", lambda device: here)
        replace("torch.Tensor.to", _moved(torch.Tensor.to))
        if setting.decode_ms:
            replace("slg_wds.generation.opening.decode", _decoder(setting.decode_ms * 1e-3))
        yield


def _moved(to: Callable[..., Any]) -> Callable[..., Any]:
    def moved(tensor: torch.Tensor, where: Any = None, **more: Any) -> Any:
        copies = "non_blocking" in more and (where == "cpu" or where is DEVICE)
        return tensor.detach() if copies else to(tensor, where, **more)

    return moved


def _decoder(seconds: float) -> Callable[..., torch.Tensor]:
    pixels = torch.zeros((375, 500, 3), dtype=torch.uint8).permute(2, 0, 1)

    def decode(data: bytes, **more: Any) -> torch.Tensor:
        time.sleep(seconds)
        return pixels

    return decode


def _seconds(launch: Callable[[], None], count: int = 50) -> float:
    with torch.inference_mode():
        for _ in range(count):
            launch()
        start = time.perf_counter()
        for _ in range(count):
            launch()
    return (time.perf_counter() - start) / count


def run_generation(options: argparse.Namespace) -> None:
    names = Setting.__dataclass_fields__
    setting = Setting(**{name: getattr(options, name) for name in names})
    with tempfile.TemporaryDirectory() as folder:
        result = generation(setting, Path(folder))
    if options.json:
        print(json.dumps({**asdict(setting), **asdict(result)}))
        return
    print(
        f"{setting.launch} at {setting.num_seg} a forward, {setting.threads} threads, {setting.crops} crops an image, "
        f"GPU of {setting.rate:,.0f}/s: {result.crops_per_second:,.0f} crops/s ({result.of_gpu:.3f}); a launch takes "
        f"{result.launch_ms:.2f} ms, alone {result.alone_ms:.2f}; cpu {result.cpu:.2f}"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("generation", help="slg-wds generate")
    for name, default in asdict(Setting()).items():
        choices = list(launches()) if name == "launch" else None
        command.add_argument(f"--{name}", type=type(default), default=default, choices=choices)
    command.add_argument("--json", action="store_true", help="print one line of JSON")
    command.set_defaults(run=run_generation)
    simulate_replay.add_command(commands)
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    options.run(options)
