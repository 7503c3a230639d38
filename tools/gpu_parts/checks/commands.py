"""Commands that run teachers on the device beside `generate`: their figures are those of the CPU."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import slg_wds
from gpu_parts.equipment.setup import Setup
from gpu_parts.supervision.findings import Findings
from slg_wds.cli import main
from slg_wds.config import EvaluateConfig
from slg_wds.generation.dry_run import dry_run
from slg_wds.generation.dry_run.variants import VARIANTS

IMAGES = 32
NEAR = 1e-4  # of a loss in nats: sums of floats have another order on a GPU


def check(findings: Findings) -> None:
    setup = Setup(findings)
    for name, run, takes in (
        ("evaluate", evaluated, 3),
        ("evaluate embeddings", embeddings_evaluated, 3),
        ("verify", asked_again, 5),
        ("dry run", predicted, 20),
    ):
        if findings.begins(name, takes=takes):
            with findings.going_on(name):
                run(setup)


def evaluated(setup: Setup) -> None:
    options = options_of(setup, "small", class_map=class_map(setup))
    there, here = (slg_wds.evaluate(options, device) for device in (str(setup.device), "cpu"))
    same = (there.top1, there.top5) == (here.top1, here.top5) and abs(there.loss - here.loss) < NEAR
    setup.findings.holds("evaluate: the CPU's figures", same, [str(there), str(here)])


def embeddings_evaluated(setup: Setup) -> None:
    options = options_of(setup, "small_tower", output="embedding", linear=False)
    there, here = (slg_wds.evaluate_embeddings(options, device) for device in (str(setup.device), "cpu"))
    setup.findings.holds("evaluate embeddings: the CPU's figures", there == here, [str(there), str(here)])


def options_of(setup: Setup, model: str, **more: Any) -> EvaluateConfig:
    images, arch = str(setup.images(IMAGES)), setup.arch(model)
    return EvaluateConfig(data=images, split="train", arch=arch, teacher_source="private", **more)


def class_map(setup: Setup) -> str:
    """Write which class of the teacher each folder of images is, and return the file."""
    path = setup.findings.folder / "class_map.txt"
    names = sorted(folder.name for folder in (setup.images(IMAGES) / "train").iterdir())
    path.write_text("".join(f"{name} {number}\n" for number, name in enumerate(names)))
    return str(path)


def asked_again(setup: Setup) -> None:
    config = setup.config(
        "small", IMAGES, num_crops=8, num_seg=64, embed_images="original", devices=str(setup.device)
    )
    slg_wds.generate(config)
    code = main(["verify", config.save_path, "-a", config.arch, "--teacher-source", "private"])
    setup.findings.holds("verify: the labels are the teacher's", code == 0, code)


def predicted(setup: Setup) -> None:
    """Every precision of the forecast can be timed, compiled too."""
    config = dataclasses.replace(setup.config("small", IMAGES, num_seg=64, num_crops=32), dry_run=True)
    summary = dry_run(config, str(setup.device)).summary
    timed = [line for line in summary if re.match(r"    \S.*: about .* crops/s", line)]
    wanted = len(VARIANTS) if setup.device.type == "cuda" else 0
    setup.findings.holds("dry run: each precision is timed", len(timed) == wanted, summary)
    setup.findings.holds("dry run: nothing is written", not Path(config.save_path).exists())
