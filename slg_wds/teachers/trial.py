"""A trial before the first label: does a crop alone decide what the teacher says of it, and are these logits?

Labels belong to crops, for good. A teacher that draws random numbers, or lets the other crops of a forward have their
say, gives labels that belong to nothing; where a teacher takes a softmax itself, a second one makes labels almost even.
Neither is an error that would be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slg_wds.errors import TeacherOutputError
from slg_wds.teachers.inside import hidden

if TYPE_CHECKING:
    import torch

    from slg_wds.teachers.teacher import Teacher


@dataclass(frozen=True)
class Limits:
    """The most that rounding may move the labels of a crop, as total variation, 0..1.

    again: the same batch asked twice. moved: the crop at another place, among other crops.
    """

    again: float
    moved: float


# On a CPU none of the architectures of tests/teachers/test_trial.py moves at all, in fp32 or bf16. A GPU may choose the
# order of its sums by a crop's place in the batch, or leave it to chance, which is worth a few roundings in each layer;
# so the limits follow the size of one: 2^-24 for fp32, 2^-11 for fp16 and TF32, 2^-8 for bf16. Batch statistics or
# dropout move the labels of trained networks by 0.2 to 0.5.
LIMITS = {
    "fp32": Limits(again=1e-4, moved=1e-3),
    "tf32": Limits(again=1e-3, moved=1e-2),
    "fp16": Limits(again=1e-3, moved=1e-2),
    "bf16": Limits(again=1e-2, moved=3e-2),
}

# A CPU takes seconds for 50 crops, and those that see each other do so among 8 too.
CPU_ROWS = 8
SHARED = 8  # at most so many crops are asked about in both batches
NEAR_ONE = 0.01  # how far a sum of probabilities may be from 1: bf16 has them to 2^-9
NEAR_ZERO = -1e-3  # and how far one that was computed with may be below 0


def try_teacher(teacher: Teacher, rows: int, temperature: float = 1.0) -> None:
    """Ask about made-up crops in three forwards, and refuse a teacher whose answers are no labels.

    Args:
        rows: crops in a forward of the run that follows. So many are asked about in each, since kernels may depend on
            it and a compiled teacher is compiled for it; of a teacher that runs on a CPU as it is, at most CPU_ROWS.
        temperature: what the run divides logits by. Above 1 it hides differences, and 1 is taken.

    Raises:
        TeacherOutputError: with the reason.
    """
    if teacher.device.type == "cpu" and not teacher.compiled:
        rows = min(rows, CPU_ROWS)
    shared = max(1, min(SHARED, rows // 2))
    first, second = (batch.to(teacher.device) for batch in _batches(rows, shared, teacher))
    told = teacher.logits(first)
    _refuse_probabilities(teacher, told)
    limits, sharpness = LIMITS[teacher.precision], 1 / min(1.0, temperature)
    again = _variation(told, teacher.logits(first), sharpness)
    if again > limits.again:
        raise _refusal(teacher, "for the same batch, asked twice", again, limits.again, "random numbers")
    moved = _variation(told[:shared], teacher.logits(second)[-shared:], sharpness)
    if moved > limits.moved:
        raise _refusal(teacher, "for a crop among other crops", moved, limits.moved, "batch statistics")


def _refuse_probabilities(teacher: Teacher, told: torch.Tensor) -> None:
    sums = told.double().sum(1)
    if bool((told >= NEAR_ZERO).all()) and bool(((sums - 1).abs() <= NEAR_ONE).all()):
        raise TeacherOutputError(
            f"{teacher.name} gives probabilities, not logits: no value is below 0 and each row sums to 1, so that its "
            "softmax would be taken twice",
            hint="return what goes into its softmax, or the logarithm of what comes out",
        )


def _refusal(teacher: Teacher, when: str, found: float, limit: float, guess: str) -> TeacherOutputError:
    return TeacherOutputError(
        f"{teacher.name} gives other labels {when}: they differ by {found:.2g} in total variation, and rounding at "
        f"{teacher.precision} by no more than {limit:g}",
        hint=f"labels must be a function of the crop alone; look for {guess} {_suspects(teacher.module)}",
    )


def _suspects(module: torch.nn.Module) -> str:
    """Where to look: the layers that are still in training and act otherwise then."""
    layers = {**dict(module.named_modules()), **hidden(module).modules}
    training = [
        f"{name or 'the module'} ({type(layer).__name__})"
        for name, layer in layers.items()
        if layer.training and ("drop" in type(layer).__name__.lower() or hasattr(layer, "running_mean"))
    ]
    if not training:
        return "in its forward"
    more = f" and {len(training) - 3} more" if len(training) > 3 else ""
    return f"in what is in training mode in spite of eval(): {', '.join(training[:3])}{more}"


def _variation(one: torch.Tensor, other: torch.Tensor, sharpness: float) -> float:
    """The largest total variation between rows [N, C] of logits; what is not finite is for those who make labels."""
    rows = [(logits.double() * sharpness).softmax(1) for logits in (one, other)]
    apart = (rows[0] - rows[1]).abs().sum(1) / 2
    return float(apart.nan_to_num(0.0).max())


def _batches(rows: int, shared: int, teacher: Teacher) -> tuple[torch.Tensor, torch.Tensor]:
    """Two batches uint8 [rows, 3, S, S]: the first `shared` crops of one are the last of the other."""
    import torch

    side = teacher.preprocessing.input_size
    usual, dark = _scenes(SHARED, side, 1, 0.45, 0.25), _scenes(3, side, 2, 0.15, 0.06)
    bright = _scenes(3, side, 3, 0.75, 0.1)
    black = torch.zeros(1, 3, side, side, dtype=torch.uint8)  # as the padding of the last batch of a shard
    strangers = torch.cat([dark, black, bright])
    first = usual[torch.arange(rows) % len(usual)]
    return first, torch.cat([strangers[torch.arange(rows - shared) % len(strangers)], first[:shared]])


def _scenes(count: int, side: int, seed: int, light: float, contrast: float) -> torch.Tensor:
    """Made-up photographs, uint8 [count, 3, side, side]: large shapes and ever weaker small ones, the same each time.

    light, contrast: mean and standard deviation of the pixels, in 0..1.
    """
    import torch
    from torch.nn.functional import interpolate

    chance = torch.Generator().manual_seed(seed)
    scenes = torch.zeros(count, 3, side, side)
    for cells in (3, 9, 27, 81):
        shapes = torch.rand(count, 3, cells, cells, generator=chance) - 0.5
        scenes += interpolate(shapes, (side, side), mode="bilinear") / cells**0.5
    pixels = scenes / scenes.std((1, 2, 3), keepdim=True) * contrast + light
    return (pixels.clamp(0, 0.98) * 255).round().to(torch.uint8)
