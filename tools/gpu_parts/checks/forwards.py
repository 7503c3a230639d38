"""Bits of forwards: graphs, weights that are cast once, precisions, and what comes before and after the network."""

from __future__ import annotations

from typing import Any

import torch

from gpu_parts.equipment.setup import Setup, apart, neighbour
from gpu_parts.supervision.findings import Findings
from slg_wds.concurrency.cores import cores
from slg_wds.generation.setup import load_teachers
from slg_wds.labels import tail_sums, topk
from slg_wds.teachers import Teacher
from slg_wds.transforms.normalisation import Normalisation

ROWS = 256
SPOILT = 1 << 26  # numbers of a piece of memory that is used and let go between two runs of a graph
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# How far logits may be from those of fp32 on the GPU, as a share of their length: networks of fifty layers with random
# weights multiply one rounding (2^-8 of bf16, 2^-11 of the others) by about ten.
NEAR = {"bf16": 0.05, "fp16": 0.01, "tf32": 0.01}
SAME = 2e-4  # fp32 on a GPU against a CPU, whose convolutions may be Winograd's; TF32 would be far above


def check(findings: Findings) -> None:
    setup = Setup(findings)
    with findings.going_on("normalisation"):
        normalisation(setup)
    with findings.going_on("top-k"):
        top(setup)
    for model in ("small",) if setup.quick else ("resnet50", "vit_b"):
        if findings.begins(model, takes=15):
            with findings.going_on(model):
                of_model(setup, model)


def normalisation(setup: Setup) -> None:
    """Every value of every channel, in each layout and dtype."""
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 2, 1).unsqueeze(0)  # [1, 3, 2, 256]
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for layout in (torch.contiguous_format, torch.channels_last):
            images = pixels.contiguous(memory_format=layout)
            here, there = (Normalisation(MEAN, STD, where, dtype) for where in ("cpu", setup.device))
            same = torch.equal(there(images.to(setup.device)).cpu(), here(images))
            setup.findings.holds(f"normalised to {dtype}, {layout}: the CPU's bits", same)


def top(setup: Setup) -> None:
    """Top-k with ties, and the sums outside of it."""
    chance = torch.Generator().manual_seed(0)
    probs = torch.softmax(torch.randn(ROWS, 1000, generator=chance).mul(2).round(decimals=1), 1)
    for k in (1, 5, 100):
        index, value = topk(probs, k)
        found, of_found = topk(probs.to(setup.device), k)
        same = torch.equal(found.cpu(), index) and torch.equal(of_found.cpu(), value)
        setup.findings.holds(f"top {k} with ties: the CPU's", same)
        wanted = tail_sums(probs, index, [(0, 100), (100, ROWS)])
        sums = [tail_sums(probs.to(setup.device), found, [(0, 100), (100, ROWS)]) for _ in range(2)]
        setup.findings.holds(f"sums outside of the top {k}: twice the same bits", torch.equal(*sums))
        distance = apart(sums[0], wanted)
        setup.findings.holds(f"sums outside of the top {k}: near the CPU's", distance < 1e-12, distance)


def of_model(setup: Setup, model: str) -> None:
    """Compare all ways to run one network with each other."""
    exact = teacher_of(setup, model, "fp32")
    side, chance = exact.preprocessing.input_size, torch.Generator().manual_seed(1)
    crops = [
        torch.randint(0, 256, (ROWS, 3, side, side), dtype=torch.uint8, generator=chance) for _ in range(3)
    ]
    wanted = exact.logits(crops[0].to(setup.device))
    few = crops[0][:8]
    on_cpu = apart(wanted[:8], teacher_of(setup, model, "fp32", "cpu").logits(few))
    setup.findings.holds(f"{model} at fp32: the CPU's logits", on_cpu < SAME, on_cpu)
    del exact
    for precision in ("bf16", "fp32", "fp16", "tf32") if setup.gpu else ("bf16",):
        name = f"{model} at {precision}"
        if setup.findings.begins(name, takes=6):
            with setup.findings.going_on(name):
                of_precision(setup, model, precision, crops, wanted)


def of_precision(
    setup: Setup, model: str, precision: str, crops: list[torch.Tensor], wanted: torch.Tensor
) -> None:
    name, findings = f"{model} at {precision}", setup.findings
    teacher = teacher_of(setup, model, precision)
    batches = [one.to(setup.device) for one in crops]
    plain = [teacher.logits(batch) for batch in batches]
    if precision in NEAR:
        distance = apart(plain[0], wanted)
        findings.holds(f"{name}: near fp32", distance < NEAR[precision], distance)
    again = [teacher.logits(batch) for batch in batches]
    findings.holds(f"{name}: twice the same bits", equal(plain, again))
    findings.found(f"{name}: weights cast once", teacher.weights_cast)
    if setup.gpu and precision in ("bf16", "fp16"):
        findings.holds(f"{name}: weights are cast once", teacher.weights_cast)
    if setup.gpu:
        graph(setup, name, teacher, batches, plain)


def graph(
    setup: Setup, name: str, teacher: Teacher, batches: list[torch.Tensor], plain: list[torch.Tensor]
) -> None:
    """Record the forward; compare it on other crops, after other work has used memory, and while a copy is late."""
    findings = setup.findings
    teacher.use_graph(ROWS)
    findings.holds(f"{name}: a CUDA graph is made", teacher.no_graph == "", teacher.no_graph)
    if teacher.no_graph:
        return
    findings.holds(
        f"{name}: the graph gives the plain bits", equal([teacher.logits(one) for one in batches], plain)
    )
    spoilt = [torch.full((SPOILT,), 7.0, device=setup.device) for _ in range(16)]
    del spoilt
    with setup.steady():
        found = [teacher.logits(one) for one in batches]
    findings.holds(f"{name}: the same after other work, without a wait of the host", equal(found, plain))
    few = teacher.logits(batches[0][:50])
    findings.holds(f"{name}: other sizes run beside the graph", apart(few, plain[0][:50]) < 0.05)
    if teacher.precision == "bf16":
        again_beside_others(setup, name, teacher, batches, plain)


def again_beside_others(
    setup: Setup, name: str, teacher: Teacher, batches: list[torch.Tensor], plain: list[torch.Tensor]
) -> None:
    """Record the forward once more, while another thread uses the device."""
    with neighbour(setup.device):
        teacher.use_graph(ROWS)
    same = teacher.no_graph == "" and equal([teacher.logits(one) for one in batches], plain)
    setup.findings.holds(f"{name}: a graph is made beside another thread's work", same, teacher.no_graph)


def equal(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def teacher_of(setup: Setup, model: str, precision: str, device: str | None = None) -> Teacher:
    """Load a teacher that runs plainly."""
    options: dict[str, Any] = {"precision": precision, "cuda_graph": "off", "threads_per_forward": cores()}
    config = setup.config(model, 8, **options)
    (teacher,) = load_teachers(config, None, ROWS, device or str(setup.device)).teachers
    return teacher
