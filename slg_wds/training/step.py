"""One step: a batch becomes gradients, these become new weights and a new average of the weights."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from slg_wds.labels import SoftLabels
from slg_wds.training.flags import Settings
from slg_wds.training.mixing import mixup_cutmix
from slg_wds.training.optimizer import clip_gradients
from slg_wds.training.state import Training

if TYPE_CHECKING:
    from slg_wds.replay.batch import Batch

# What a step compares the student with: distributions, or each teacher's embeddings [B, D] by its name.
Answers = SoftLabels | dict[str, Tensor]
AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def train_step(args: Settings, training: Training, criterion: nn.Module, batch: Batch) -> Tensor:
    """Take one step on this process's part of a batch.

    Args:
        args: the flags.
        training: what the step changes.
        criterion: (what the student gives, the teachers' answers) -> the mean loss.
        batch: B crops on the device.

    Returns:
        The loss, detached, on the device.
    """
    # The step's number decides all that is random in a step, so checkpoints need no random state.
    torch.manual_seed(_seed_of_step(args, training.progress.step))
    images, answers = batch.images, batch.embedding if batch.labels is None else batch.labels
    if args.mixup_cutmix and isinstance(answers, SoftLabels):
        images, answers = mixup_cutmix(args, training.progress.step, images, answers)
    loss = add_gradients(args, training, criterion, images, answers)
    if args.clip_grad is not None:
        training.scaler.unscale_(training.optimizer)
        clip_gradients(training.model, args.clip_grad, args.clip_mode)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.optimizer.zero_grad(set_to_none=True)
    if training.average is not None:
        training.average.update(training.model)
    return loss


def add_gradients(
    args: Settings, training: Training, criterion: nn.Module, images: Tensor, answers: Answers
) -> Tensor:
    """Add up the gradients of --grad-accum-steps pieces of a batch; return the mean loss over the batch.

    A piece counts as much as it has crops, so the pieces together give the gradient of the whole batch. Only the last
    one lets the processes exchange gradients: these are the sums by then.
    """
    total = torch.zeros((), device=images.device)
    pieces, crops = args.grad_accum_steps, len(images)
    for begin, end in pairwise(crops * number // pieces for number in range(pieces + 1)):
        with _exchange(training.net, end == crops):
            with autocast(args):
                outputs = training.net(images[begin:end])
            loss = criterion(outputs, _part(answers, begin, end)) * ((end - begin) / crops)
            training.scaler.scale(loss).backward()
        total += loss.detach()
    return total


def _part(answers: Answers, begin: int, end: int) -> Answers:
    if isinstance(answers, SoftLabels):
        return answers[begin:end]
    return {name: rows[begin:end] for name, rows in answers.items()}


def _exchange(net: nn.Module, now: bool) -> contextlib.AbstractContextManager[Any]:
    """Return the context of a piece, in which several processes exchange gradients `now` or not."""
    no_sync: Any = getattr(net, "no_sync", contextlib.nullcontext)
    return contextlib.nullcontext() if now else no_sync()


def autocast(args: Settings) -> contextlib.AbstractContextManager[Any]:
    """Return the context of --amp, which does nothing for `off`."""
    return torch.autocast(args.device.type, AMP[args.amp], enabled=AMP[args.amp] is not None)


def _seed_of_step(args: Settings, step: int) -> int:
    return int(np.random.SeedSequence([args.seed, args.rank, step]).generate_state(1, np.uint64)[0] >> 1)
