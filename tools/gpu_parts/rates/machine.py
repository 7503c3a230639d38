"""What the machine is: without it the figures of a run say little."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gpu_parts.supervision.findings import Findings
from slg_wds.concurrency.cores import cores

PACKAGES = (
    "torch", "torchvision", "timm", "triton", "numpy", "webdataset", "zstandard", "msgpack", "msgspec",
    "isal", "obstore"
)  # fmt: skip
QUERY = (
    "name,driver_version,memory.total,memory.used,clocks.sm,clocks.max.sm,temperature.gpu,power.limit,pstate"
)
MANY = 1 << 28  # bytes of a copy
SIDE = 8192  # of a matrix


def describe(findings: Findings) -> None:
    gpu = findings.device.startswith("cuda")
    if gpu and not torch.cuda.is_available():
        findings.stop("no GPU can be used here; --device cpu --quick tests the program without one")
        return
    findings.found("machine", _machine())
    findings.found("software", {name: _version(name) for name in PACKAGES})
    if not gpu:
        return
    device = torch.device(findings.device)
    torch.cuda.set_device(device)
    findings.found("gpu", _gpu(device))
    findings.found("nvidia-smi", _nvidia_smi())
    with findings.going_on("speeds"):
        findings.found("speeds", _speeds(device))


def _machine() -> dict[str, object]:
    model = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ":")
    memory = next((line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), ":")
    return {
        "processor": model.partition(":")[2].strip() or platform.machine(),
        "cores": cores(), "cpus": os.cpu_count(), "memory": memory.partition(":")[2].strip(),
        "system": platform.platform(), "python": sys.version.split()[0], "compiler": shutil.which("gcc") or "none",
        "load": os.getloadavg(),
    }  # fmt: skip


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _gpu(device: torch.device) -> dict[str, object]:
    about = torch.cuda.get_device_properties(device)
    free, whole = torch.cuda.mem_get_info(device)
    return {
        "name": about.name, "capability": f"{about.major}.{about.minor}", "processors": about.multi_processor_count,
        "memory": whole, "free": free, "gpus": torch.cuda.device_count(), "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(), "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", ""),
    }  # fmt: skip


def _nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:  # it is no part of the package's promises
        return str(error)


def _speeds(device: torch.device) -> dict[str, float]:
    """Gigabytes per second of copies, TFLOP/s of bf16 products, microseconds of a launch."""
    far = torch.empty(MANY, dtype=torch.uint8, device=device)
    pinned, plain = torch.ones(MANY, dtype=torch.uint8, pin_memory=True), torch.ones(MANY, dtype=torch.uint8)
    square = torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16)
    few = torch.zeros(4, device=device)
    gigabytes = MANY / 1e9
    return {
        "pinned to GPU, GB/s": gigabytes / _seconds(lambda: far.copy_(pinned, non_blocking=True), 10),
        "pageable to GPU, GB/s": gigabytes / _seconds(lambda: far.copy_(plain), 3),
        "GPU to pinned, GB/s": gigabytes / _seconds(lambda: pinned.copy_(far, non_blocking=True), 10),
        "on the GPU, GB/s read and written": 2 * gigabytes / _seconds(far.clone, 20),
        "bf16 products, TFLOP/s": 2 * SIDE**3 / 1e12 / _seconds(lambda: square @ square, 20),
        "a launch, us": 1e6 * _seconds(few.relu_, 2000),
    }


def _seconds(work: Callable[[], object], times: int) -> float:
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / times
