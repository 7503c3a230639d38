"""FKD's epochs and learning rates, and the temperature of labels.

timm's schedulers do not give them: FKD holds the rate constant within a walk of several epochs, and timm's step
schedule divides the rate one epoch earlier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch

from slg_wds.training.flags import Settings


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


def set_rate(args: Settings, optimizer: torch.optim.Optimizer, epoch: int, step: int) -> None:
    """Set the learning rate of a step.

    Args:
        args: the flags.
        optimizer: all of its parameter groups get the rate.
        epoch: the first epoch of the walk, which alone decides FKD's rate.
        step: steps taken so far; the first --warmup steps have a lower rate.
    """
    if args.cos:
        rate = args.lr * 0.5 * (1 + math.cos(math.pi * epoch / args.epochs))
    else:
        rate = args.lr * 0.1 ** sum(epoch >= milestone for milestone in args.schedule)
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / (args.warmup + 1))
