"""A run: read it from `run` down."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from slg_wds import LabelSet, SoftCrossEntropy
from slg_wds.errors import UsageError
from slg_wds.training.checkpoints import Training, prepare, read_checkpoint, restore, save
from slg_wds.training.data import classes_of, open_loader, open_sets
from slg_wds.training.flags import Settings, check
from slg_wds.training.meter import Meter
from slg_wds.training.mixing import mixup_cutmix
from slg_wds.training.processes import say, threads_of
from slg_wds.training.schedule import set_rate, walks
from slg_wds.training.student import make_student, set_up, teachers_interpolation
from slg_wds.training.validation import Validation, open_validations

if TYPE_CHECKING:
    from slg_wds.replay.batch import Batch
    from slg_wds.replay.device import DeviceLoader
    from slg_wds.teachers import Preprocessing

AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def run(args: Settings) -> None:
    """Train or only validate, as the flags say; args has device, rank and ranks already.

    Raises:
        SlgWdsError: flags, labels, images or checkpoints that cannot be used; a loss that is not finite.
    """
    check(args)
    make_deterministic(args.deterministic)
    checkpoint = read_checkpoint(args)
    labels = [] if args.evaluate else open_sets(args)
    args.num_classes = num_classes = classes_of(args, labels, checkpoint)
    torch.manual_seed(args.seed)
    model, preprocessing = make_student(args, num_classes, teachers_interpolation(labels))
    training = set_up(args, model)
    if checkpoint is not None:
        restore(args, training, checkpoint)
    validations = open_validations(args, labels, num_classes, preprocessing, threads_of(args))
    if not args.evaluate:
        train(args, training, labels, preprocessing, validations)
    elif validations:
        validate(args, training, validations)
    else:
        raise UsageError("there is nothing to validate on", hint="give IMAGES with a val folder")


def train(
    args: Settings,
    training: Training,
    labels: list[LabelSet],
    preprocessing: Preprocessing,
    validations: list[Validation],
) -> None:
    """Walk over the images until all epochs are done; validate and save after each walk."""
    prepare(args)
    progress = training.progress
    todo = list(walks(progress.epoch, args.epochs, args.num_crops))
    loaders = {crops: open_loader(args, labels, preprocessing, crops) for crops in dict(todo).values()}
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    say(args, f"student {args.arch}: {parameters:,} parameters, {args.num_classes} classes, input "
        f"{preprocessing}; {args.ranks} x {args.device.type}, {sum(map(len, labels)):,} images")  # fmt: skip
    for epoch, crops in todo:
        train_walk(args, training, loaders[crops], epoch, crops)
        score = validate(args, training, validations)
        best, progress.best = score > progress.best, max(score, progress.best)
        save(args, training, best)
    say(args, f"trained {progress.step:,} steps in {progress.seconds:.1f} s")


def train_walk(args: Settings, training: Training, walk: DeviceLoader, epoch: int, crops: int) -> None:
    """Train on one walk over the images, or on what a checkpoint left of it."""
    progress, criterion = training.progress, SoftCrossEntropy(args.temp)
    walk.set_epoch(epoch // crops)
    if progress.loader is not None:
        walk.load_state_dict(progress.loader)
    training.net.train()
    training.optimizer.zero_grad(set_to_none=True)
    meter = Meter(args)
    for batch in walk:
        set_rate(args, training.optimizer, epoch, progress.step)
        loss = train_step(args, training, criterion, batch)
        progress.step += 1
        progress.epoch, progress.loader = epoch, walk.state_dict()
        meter.add(loss, len(batch))
        if progress.step % args.print_freq == 0:
            progress.seconds += meter.show(epoch, training, len(walk))
        if args.checkpoint_every and progress.step % args.checkpoint_every == 0:
            progress.seconds += meter.lap()
            save(args, training)
    progress.seconds += meter.lap()
    progress.epoch, progress.loader = epoch + crops, None


def train_step(args: Settings, training: Training, criterion: nn.Module, batch: Batch) -> Tensor:
    """Take one step on this process's part of a batch; returns its loss, detached, on the device."""
    # The step's number decides all that is random in a step, so checkpoints need no random state.
    torch.manual_seed(_seed_of_step(args, training.progress.step))
    images, labels = batch.images, batch.labels
    if args.mixup_cutmix:
        images, labels = mixup_cutmix(args, training.progress.step, images, labels)
    with autocast(args):
        logits = training.net(images)
    loss: Tensor = criterion(logits, labels)
    training.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.optimizer.zero_grad(set_to_none=True)
    if training.average is not None:
        training.average.update(training.model)
    return loss.detach()


def _seed_of_step(args: Settings, step: int) -> int:
    return int(np.random.SeedSequence([args.seed, args.rank, step]).generate_state(1, np.uint64)[0] >> 1)


def validate(args: Settings, training: Training, validations: list[Validation]) -> float:
    """Validate the student and, where there is one, the average of its weights; print all figures.

    Returns:
        The first validation's percentage, of the average if there is one; -inf without validations.
    """
    score, progress = -math.inf, training.progress
    models = {"": training.model}
    if training.average is not None:
        models["average of weights, "] = training.average.module
    for whose, model in models.items():
        model.eval()
        for number, validation in enumerate(validations):
            with torch.no_grad(), autocast(args):
                percent, figures = validation(model)
            say(args, f"epoch {progress.epoch}, {progress.seconds:.1f} s of training: {whose}{figures}")
            score = percent if number == 0 else score
    if args.target_accuracy and not progress.reached and score >= args.target_accuracy:
        progress.reached = progress.seconds
        say(args, f"{args.target_accuracy:g}% reached after {progress.seconds:.1f} s of training")
    return score


def make_deterministic(asked: bool) -> None:
    """Use deterministic algorithms if asked to; else let cuDNN choose the fastest."""
    torch.backends.cudnn.benchmark = not asked
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def autocast(args: Settings) -> contextlib.AbstractContextManager[Any]:
    """Return the context of --amp, which does nothing for `off`."""
    return torch.autocast(args.device.type, AMP[args.amp], enabled=AMP[args.amp] is not None)
