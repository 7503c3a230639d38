"""A trial before the first label: does a crop alone decide the teacher's output, and is that output logits?

Labels are stored for crops. If a teacher draws random numbers, or its output for a crop depends on the other crops of
the batch, its labels belong to no crop. If it returns probabilities, a second softmax makes the labels almost uniform.
Neither raises an error by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from slg_wds.console import counted, note_if_slow
from slg_wds.errors import TeacherOutputError
from slg_wds.teachers.forwards.scenes import scenes
from slg_wds.teachers.inside import find_hidden

if TYPE_CHECKING:
    import torch

    from slg_wds.teachers.teacher import Teacher


@dataclass(frozen=True)
class TrialLimits:
    """How far rounding may move the labels of a crop, in total variation, 0..1.

    Attributes:
        again: between two forwards of the same batch.
        moved: between two batches that have the crop at other places, among other crops.
    """

    again: float
    moved: float


# On a CPU none of the architectures of tests/teachers/test_trial.py moves at all, in fp32 or bf16. On a GPU the
# order of sums may depend on a crop's place in the batch, or on chance, which costs a few roundings in each layer. So
# the limits follow the size of one rounding: 2^-24 for fp32, 2^-11 for fp16 and TF32, 2^-8 for bf16. Batch statistics
# or dropout move the labels of trained networks by 0.2 to 0.5.
LIMITS = {
    "fp32": TrialLimits(again=1e-4, moved=1e-3),
    "tf32": TrialLimits(again=1e-3, moved=1e-2),
    "fp16": TrialLimits(again=1e-3, moved=1e-2),
    "bf16": TrialLimits(again=1e-2, moved=3e-2),
}

# A CPU takes seconds for 50 crops, and crops that influence each other do so among 8 too.
CPU_ROWS = 8
SHARED = 8  # the largest number of crops that are in both batches
SLOW = 10.0  # seconds after which a line says what is tried
NEAR_ONE = 0.01  # how far a sum of probabilities may be from 1: bf16 rounds them to 2^-9
NEAR_ZERO = -1e-3  # how far below 0 rounding may put a probability


def try_teacher(teacher: Teacher, rows: int, temperature: float = 1.0, *, embeds: bool = False) -> None:
    """Run synthetic crops in three forwards, and refuse a teacher whose outputs cannot be labels.

    Args:
        teacher: the one to try.
        rows: number of crops in each forward of the run that follows. The trial uses as many, since kernels may depend
            on the number and a compiled teacher is compiled for it; on a CPU without compilation, at most CPU_ROWS.
        temperature: what the run divides logits by. A value above 1 would hide differences, so the trial uses 1 then.
        embeds: whether the outputs are embeddings, which may be of any sum. They are compared by their distance, as a
            share of their length, and half of it takes the place of the total variation.

    Raises:
        TeacherOutputError: the output for a crop depends on more than the crop, or is probabilities, not logits.
        DeviceError, TeacherError: as `Teacher.logits`.
    """
    if teacher.device.type == "cpu" and not teacher.compiled:
        rows = min(rows, CPU_ROWS)
    with note_if_slow(_what_is_tried(teacher, rows), SLOW):
        _try(teacher, rows, temperature, embeds)


def _what_is_tried(teacher: Teacher, rows: int) -> str:
    where = f"{teacher.precision} on {teacher.device}"
    line = f"trying {teacher.name}: 3 forwards of {counted(rows, 'made-up crop')}, {where}"
    slow = teacher.device.type == "cpu" and teacher.precision != "fp32"
    return (
        f"{line}; a CPU without instructions for {teacher.precision} takes minutes for it" if slow else line
    )


def _try(teacher: Teacher, rows: int, temperature: float, embeds: bool) -> None:
    shared = max(1, min(SHARED, rows // 2))
    first, second = (batch.to(teacher.device) for batch in _batches(rows, shared, teacher))
    logits = teacher.logits(first)
    if not embeds:
        _refuse_probabilities(teacher, logits)
    limits, sharpness = LIMITS[teacher.precision], 1 / min(1.0, temperature)
    apart = _distance if embeds else partial(_variation, sharpness=sharpness)
    again = apart(logits, teacher.logits(first))
    if again > limits.again:
        raise _refusal(teacher, "for the same batch, asked twice", again, limits.again, "random numbers")
    moved = apart(logits[:shared], teacher.logits(second)[-shared:])
    if moved > limits.moved:
        raise _refusal(teacher, "for a crop among other crops", moved, limits.moved, "batch statistics")


def _refuse_probabilities(teacher: Teacher, logits: torch.Tensor) -> None:
    sums = logits.double().sum(1)
    if bool((logits >= NEAR_ZERO).all()) and bool(((sums - 1).abs() <= NEAR_ONE).all()):
        raise TeacherOutputError(
            f"{teacher.name} gives probabilities, not logits: no value is below 0 and each row sums to 1, so that its "
            "softmax would be taken twice",
            hint="return what goes into its softmax, or the logarithm of what comes out",
        )


def _refusal(teacher: Teacher, when: str, found: float, limit: float, guess: str) -> TeacherOutputError:
    return TeacherOutputError(
        f"{teacher.name} gives other labels {when}: they differ by {found:.2g} in total variation; rounding at "
        f"{teacher.precision} explains at most {limit:g}",
        hint=f"labels must be a function of the crop alone; look for {guess} {_suspects(teacher.module)}",
    )


def _suspects(module: torch.nn.Module) -> str:
    """Name the layers that are still in training mode and behave differently in it, for the hint."""
    layers = {**dict(module.named_modules()), **find_hidden(module).modules}
    training = [
        f"{name or 'the module'} ({type(layer).__name__})"
        for name, layer in layers.items()
        if layer.training and ("drop" in type(layer).__name__.lower() or hasattr(layer, "running_mean"))
    ]
    if not training:
        return "in its forward"
    more = f" and {len(training) - 3} more" if len(training) > 3 else ""
    return f"in layers that are in training mode in spite of eval(): {', '.join(training[:3])}{more}"


def _variation(one: torch.Tensor, other: torch.Tensor, sharpness: float) -> float:
    """Return the largest total variation between the rows of logits [N, C]. NaN counts as 0: generation reports it."""
    rows = [(logits.double() * sharpness).softmax(1) for logits in (one, other)]
    apart = (rows[0] - rows[1]).abs().sum(1) / 2
    return float(apart.nan_to_num(0.0).max())


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return half the largest distance between the rows of embeddings [N, D], as a share of the longer one's length."""
    a, b = one.double(), other.double()
    longest = a.norm(dim=1).maximum(b.norm(dim=1)).clamp(min=1e-300)
    return float(((a - b).norm(dim=1) / longest / 2).nan_to_num(0.0).max())


def _batches(rows: int, shared: int, teacher: Teacher) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two batches uint8 [rows, 3, S, S]. The first `shared` crops of one are the last of the other."""
    import torch

    side = teacher.preprocessing.input_size
    usual, dark = scenes(SHARED, side, 1), scenes(3, side, 2, 0.15, 0.06)
    bright = scenes(3, side, 3, 0.75, 0.1)
    black = torch.zeros(1, 3, side, side, dtype=torch.uint8)  # like the padding of the last batch of a shard
    strangers = torch.cat([dark, black, bright])
    first = usual[torch.arange(rows) % len(usual)]
    return first, torch.cat([strangers[torch.arange(rows - shared) % len(strangers)], first[:shared]])
