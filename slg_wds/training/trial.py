"""A trial of the student before the first step: does it take images of its size, and are its outputs logits?

Without it, a size that does not fit a model is an error from somewhere within, long after the start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from slg_wds.errors import SlgWdsError, UsageError
from slg_wds.teachers.weights import one_line
from slg_wds.training.faults import run_faults
from slg_wds.training.flags import Settings
from slg_wds.training.step import autocast


@contextlib.contextmanager
def refused_images(args: Settings, size: int) -> Iterator[None]:
    """Turn what a student raises at images of one size into an error of one line; let errors of the device through.

    Args:
        args: the flags.
        size: side of the images, in pixels.

    Raises:
        UsageError: the student does not take them.
    """
    try:
        with run_faults(args):
            yield
    except SlgWdsError:
        raise
    except Exception as error:
        raise UsageError(
            f"the student {args.arch} does not take images of {size} x {size} pixels: {one_line(error)}",
            hint=_hint(args),
        ) from error


def _hint(args: Settings) -> str | None:
    """Name the flags that make a student other than it is by itself."""
    given = {"--size": args.size, "--model-kwargs": args.model_kwargs}
    flags = " and ".join(flag for flag, value in given.items() if value)
    return f"leave out {flags}, or give what it takes" if flags else None


def try_student(args: Settings, model: nn.Module, size: int) -> None:
    """Show the student two black images, on its device and in its precision.

    Args:
        args: the flags; num_classes is that of the student.
        model: the student, on its device. It is not changed.
        size: side of its input.

    Raises:
        UsageError: it does not take such images, or gives no logits.
    """
    training = model.training
    with refused_images(args, size), torch.no_grad(), autocast(args):
        found: Any = model.eval()(torch.zeros(2, 3, size, size, device=args.device))
    model.train(training)
    shape = list(getattr(found, "shape", []))
    if args.distills or shape == [2, args.num_classes]:  # the features of a distiller were looked at already
        return
    raise UsageError(
        f"the student {args.arch} gives {shape or type(found).__name__} for 2 images, not logits "
        f"[2, {args.num_classes}]",
        hint="a factory of your own returns a model that gives a tensor, with an output for each class of the labels",
    )
