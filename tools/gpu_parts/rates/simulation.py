"""What tools/bench/simulate_gpu.py says of this machine, beside what was measured: it calibrates the simulation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gpu_parts.supervision.findings import Findings

LAUNCHES = {"graph": "graph", "plain": "eager", "compiled and graph": "graph", "compiled": "compiled"}


def check(findings: Findings) -> None:
    with findings.going_on("the loader"):
        loader(findings)
    with findings.going_on("generation"):
        generation(findings)


def loader(findings: Findings) -> None:
    """Simulate it with 16 threads, batches as they were measured."""
    if not findings.begins("the loader", takes=8):
        return
    from simulate_replay import ReplaySetting, lay_out_set, replay

    folder = findings.folder / "simulated"
    lay_out_set(folder, 48 if findings.quick else 2048, 16)
    for crops in (1, 4, 8):
        name = f"loader, {crops} crops an image"
        if findings.begins(name, takes=4):
            setting = ReplaySetting(
                threads=2 if findings.quick else 16, crops=crops, batch=32 if findings.quick else 128
            )
            found = replay(setting, folder)
            findings.found(
                name, {"crops/s": round(found.crops_per_second), "us an image": round(found.microseconds)}
            )


def generation(findings: Findings) -> None:
    """Simulate it with the rates of the bare forwards that were measured."""
    from simulate_gpu import Setting
    from simulate_gpu import generation as simulated

    measured: dict[str, Any] = findings.of_part("generation").get("figures", {})
    for name, found in measured.items():
        model, mode, forward, _ = name.split(", ")
        if model == "vit_b" or not findings.begins(name, takes=8):
            continue
        sizes = {"threads": 2, "images": 4, "crops": 60} if findings.quick else {}
        rate, num_seg = sum(found["bare"]) / 2, int(forward.split()[0])
        setting = Setting(rate=rate, num_seg=num_seg, launch=LAUNCHES[mode], **sizes)
        result = asdict(simulated(setting, findings.folder / f"simulated {name}"))
        findings.found(
            name, {key: round(result[key], 3) for key in ("of_gpu", "launch_ms", "alone_ms", "cpu")}
        )
