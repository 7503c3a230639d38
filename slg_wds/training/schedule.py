"""Walks over the images, the learning rate of each step, and the temperature of labels.

timm's schedulers do not give FKD's rates: FKD holds the rate constant within a walk of several epochs, and timm's step
schedule divides the rate one epoch earlier. So FKD's are computed here, and --sched takes timm's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import timm
import torch
from timm.scheduler.scheduler_factory import create_scheduler_v2

from slg_wds.errors import UsageError
from slg_wds.training.flags import Settings

KNOWN = ("cosine", "tanh", "step", "multistep", "poly")  # to every timm; newer ones have more

# (first epoch of the walk, batches of it that are done, steps taken so far): sets the rate of the next step.
SetRate = Callable[[int, int, int], None]


def walks(epoch: int, epochs: int, num_crops: int) -> Iterator[tuple[int, int]]:
    """Yield the walks over the images that are left: (first epoch, crops of each image).

    Args:
        epoch: epochs that are done.
        epochs: all epochs. The last `num_crops` of them are walks with one crop.
        num_crops: crops of an image in all other walks, which count as that many epochs.
    """
    while epoch < epochs:
        crops = num_crops if epoch + num_crops < epochs else 1
        yield epoch, crops
        epoch += crops


def label_temperature(args: Settings, crops: int) -> Callable[[int], float] | None:
    """Return the temperature of labels as a function of the walk; None: as they were made.

    It goes evenly from --label-temp in epoch 0 to --label-temp-end in the last epoch.

    Args:
        args: the flags.
        crops: crops of an image in each walk, so the epochs that a walk counts as.
    """
    first, last = args.label_temp, args.label_temp_end
    if first is None:
        return None
    rise = 0.0 if last is None else (last - first) / max(1, args.epochs - 1)
    return lambda walk: first + rise * walk * crops


def make_schedule(args: Settings, optimizer: torch.optim.Optimizer, steps: Mapping[int, int]) -> SetRate:
    """Return what sets the learning rate before each step, a pure function of the flags and its arguments.

    Args:
        args: the flags: --sched, or FKD's schedules without it.
        optimizer: all of its parameter groups get the rate.
        steps: of a walk, by its crops of an image.

    Raises:
        UsageError: timm has no such schedule.
    """
    if args.sched is None:
        return partial(set_rate, args, optimizer)
    return _schedule_of_timm(args, args.sched, optimizer, steps)


def set_rate(args: Settings, optimizer: torch.optim.Optimizer, epoch: int, batch: int, step: int) -> None:
    """Set the learning rate of a step by FKD's schedules.

    Args:
        args: the flags.
        optimizer: all of its parameter groups get the rate.
        epoch: the first epoch of the walk, which alone decides FKD's rate.
        batch: not used: the rate is that of the walk.
        step: steps taken so far; the first --warmup steps have a lower rate.
    """
    if args.cos:
        rate = args.lr * 0.5 * (1 + math.cos(math.pi * epoch / args.epochs))
    else:
        rate = args.lr * 0.1 ** sum(epoch >= milestone for milestone in args.schedule)
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / (args.warmup + 1))


def _schedule_of_timm(
    args: Settings, name: str, optimizer: torch.optim.Optimizer, steps: Mapping[int, int]
) -> SetRate:
    """Return timm's schedule, stepped at every update and stretched over all updates of the training.

    Where a step is in it follows from its epoch and its batch, by the steps that are left. The steps that were taken
    say nothing: they may have been of another batch size, and a checkpoint of FKD does not count them.
    """

    @cache
    def left(epoch: int) -> int:
        return sum(steps[crops] for _, crops in walks(epoch, args.epochs, args.num_crops))

    for group in optimizer.param_groups:  # timm starts from these, and a checkpoint has others
        group["lr"] = group["initial_lr"] = args.lr
    updates = left(0) / args.epochs
    options: dict[str, Any] = {
        "updates_per_epoch": updates,  # timm only multiplies by it
        "step_on_epochs": False,
        "warmup_epochs": args.warmup_epochs,
        "warmup_lr": args.warmup_lr,
        "min_lr": args.min_lr,
        "decay_milestones": args.schedule,
    }
    hint = None if name in KNOWN else f"known ones are {', '.join(KNOWN)}"
    try:
        more = {"num_epochs": args.epochs, **args.sched_kwargs}
        scheduler, _ = create_scheduler_v2(optimizer, name, **options, **more)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"timm's schedule {name} refuses this: {error}", hint=hint) from None
    if scheduler is None:
        raise UsageError(f"timm {timm.__version__} has no schedule {name!r}", hint=hint)
    _refuse_a_longer_one(args, scheduler, updates)
    return lambda epoch, batch, step: scheduler.step_update(left(0) - left(epoch) + batch)


def _refuse_a_longer_one(args: Settings, scheduler: Any, updates: float) -> None:
    """Refuse a schedule of which the training would see a part only: timm's own trainer goes on to its end.

    Args:
        args: the flags.
        scheduler: timm's.
        updates: an epoch.

    Raises:
        UsageError: cycles, cooldown or warmup make it longer than the training.
    """
    if not hasattr(scheduler, "get_cycle_length"):
        return
    epochs = scheduler.get_cycle_length() / updates + args.sched_kwargs.get("cooldown_epochs", 0)
    if epochs > args.epochs + 1 / updates:  # timm rounds to updates
        raise UsageError(
            f"timm's schedule takes {epochs:.4g} epochs, and --epochs are {args.epochs}",
            hint="num_epochs in --sched-kwargs is the length of a cycle, which the others add to or multiply",
        )
