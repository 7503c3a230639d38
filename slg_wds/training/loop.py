"""A training run: walks over the images, each followed by validation, logs and a checkpoint."""

from __future__ import annotations

import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slg_wds import LabelSet, SoftCrossEntropy
from slg_wds.errors import UsageError
from slg_wds.training.data import (
    batch_crops,
    classes_of,
    digest_of,
    open_loader,
    open_sets,
    scale_of,
    taught_widths,
)
from slg_wds.training.distiller import DistillationLoss, Distiller
from slg_wds.training.flags import Settings, check
from slg_wds.training.flags.args_file import ARGS_FILE
from slg_wds.training.meter import Meter, figures_of
from slg_wds.training.output.checkpoints import (
    flags_of,
    go_on,
    place_of,
    read_checkpoint,
    restore,
    save,
    tell_resumed,
)
from slg_wds.training.output.folder import (
    BEST,
    CHECKPOINT,
    args_beside,
    held,
    make_folder,
    refuse_another_training,
)
from slg_wds.training.output.logs import Log, open_logs
from slg_wds.training.processes import refuse_differences, say, share_buffers
from slg_wds.training.schedule import SetRate, make_schedule, walks
from slg_wds.training.state import Training
from slg_wds.training.step import autocast, train_step
from slg_wds.training.student import make_distiller, make_student, set_up, shown_as
from slg_wds.training.trial import refused_images, try_student
from slg_wds.training.validation import Validation, known_folders, open_validations

if TYPE_CHECKING:
    from slg_wds.replay.device import DeviceLoader


def run(args: Settings) -> None:
    """Train or only validate, as the flags say; args has device, rank and ranks already.

    Raises:
        SlgWdsError: flags, labels, images or checkpoints that cannot be used; a loss that is not finite.
    """
    check(args)
    make_deterministic(args.deterministic)
    if not args.evaluate:
        refuse_another_training(args)
    checkpoint = read_checkpoint(args)
    refuse_differences(args, {**flags_of(args), "checkpoint": place_of(checkpoint)})
    labels = [] if args.evaluate else open_sets(args)
    args.num_classes = num_classes = classes_of(args, labels, checkpoint)
    args.logit_scale = scale_of(args, labels, checkpoint)
    torch.manual_seed(args.seed)
    model, preprocessing = make_student(args, num_classes, shown_as(labels, checkpoint))
    size = preprocessing.input_size
    if args.distills:
        with refused_images(args, size):
            model = make_distiller(args, model, taught_widths(labels, checkpoint), size)
    training = set_up(args, model, preprocessing, checkpoint)
    try_student(args, model, size)
    if checkpoint is not None:
        restore(args, training, checkpoint)
    training.folders = known_folders(labels, checkpoint)
    validations = open_validations(args, labels, training.folders, num_classes, preprocessing)
    if not args.evaluate:
        train(args, training, labels, validations, checkpoint)
    elif validations:
        validate(args, training, validations)
    else:
        raise UsageError("there is nothing to validate on", hint="give IMAGES with a val folder")


def train(
    args: Settings,
    training: Training,
    labels: list[LabelSet],
    validations: list[Validation],
    checkpoint: dict[str, Any] | None,
) -> None:
    """Walk over the images until all epochs are done; validate, log and save after each walk."""
    left = list(walks(training.progress.epoch, args.epochs, args.num_crops))
    if not left:
        tell_done_before(args, training)
        return
    make_folder(args)
    planned = list(walks(0, args.epochs, args.num_crops))
    kinds = dict.fromkeys(crops for _, crops in planned)
    loaders = {crops: open_loader(args, labels, training.preprocessing, crops) for crops in kinds}
    steps = {crops: len(loader) for crops, loader in loaders.items()}
    training.steps = sum(steps[crops] for _, crops in planned)
    set_rate = make_schedule(args, training.optimizer, steps)
    training.sets = digest_of(loaders[1])
    refuse_differences(args, {"label_sets": training.sets})
    if checkpoint is not None:
        for _, crops in left[:1]:
            go_on(args, training, checkpoint, loaders[crops])
        tell_resumed(args, training, checkpoint)
    tell_begun(args, training, loaders[1])
    with args_beside(args), open_logs(args, training.progress) as log:
        for epoch, crops in left:
            loaders[crops].set_epoch(epoch // crops)
            train_walk(args, training, set_rate, loaders[crops], epoch)
            end_walk(args, training, validations, epoch + crops, log)
    say(args, f"trained {training.progress.step:,} steps in {training.progress.seconds:.1f} s")
    say(args, what_next(args, bool(validations), training.folders.known))


def tell_done_before(args: Settings, training: Training) -> None:
    """Say that a resumed training was at its end already. This run writes nothing."""
    progress = training.progress
    say(args, f"nothing is left to train: {progress.epoch} of {args.epochs} epochs were trained before, in "
        f"{progress.step:,} steps; a larger --epochs goes on")  # fmt: skip
    if CHECKPOINT in held(args):
        say(args, what_next(args, BEST in held(args), training.folders.known))


def tell_begun(args: Settings, training: Training, last: DeviceLoader) -> None:
    """Say who learns what, how and where; `last` is the loader of the last walks, of one crop of each image."""
    images = last.loader.num_samples
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    say(args, f"student {args.arch}: {parameters:,} parameters, {learned(training.model, args)}, input "
        f"{training.preprocessing}; {args.ranks} x {args.device.type}, {images:,} images")  # fmt: skip
    if (crops := batch_crops(args)) != args.batch_size:
        say(args, f"-b {args.batch_size:,} is rounded up to {crops:,} crops: {args.num_crops} of each image")


def end_walk(args: Settings, training: Training, validations: list[Validation], epoch: int, log: Log) -> None:
    """Validate, log and save after a walk that led to this epoch."""
    progress = training.progress
    if validations:  # which may take long, or fail, and the walk should not be lost with them
        save(args, training)
    progress.epoch, progress.loader = epoch, None
    score, found = validate(args, training, validations)
    best, progress.best = score > progress.best, max(score, progress.best)
    log({**figures_of(training), **found})
    save(args, training, best)


def what_next(args: Settings, validated: bool, has_classes: bool) -> str:
    """Say where the student lies, and how to validate it again, or for the first time.

    Args:
        args: the flags.
        validated: whether it was done, so that there is a best student.
        has_classes: whether it is known which class folders are the student's classes.
    """
    folder = Path(args.save_checkpoint_path)
    if not validated:
        student, path = f"the student: {folder / CHECKPOINT}", shlex.quote(str(folder / CHECKPOINT))
        loads_itself = ":" in args.arch  # a factory of your own
        if loads_itself or not (has_classes or args.distills):
            return student
        output = "--output embedding " if args.distills else ""
        return f"{student}; slg-wds evaluate IMAGES {output}-a {args.arch} --teacher_path {path} measures it"
    best = shlex.quote(str(folder / BEST))
    flags = f"--config {shlex.quote(str(folder / ARGS_FILE))} --evaluate --resume {best}"
    return f"the best student: {folder / BEST}; slg-wds train {flags} validates it again"


def train_walk(args: Settings, training: Training, set_rate: SetRate, walk: DeviceLoader, epoch: int) -> None:
    """Train on one walk over the images, or on what a checkpoint left of it, where the loader is by now."""
    progress, criterion = training.progress, make_criterion(args, training.model)
    if progress.loader is None:
        progress.walk = {}
    else:
        set_rate(epoch, progress.batches - 1, progress.step - 1)  # of the last step, which may end the walk
    training.net.train()
    training.optimizer.zero_grad(set_to_none=True)
    meter = Meter(args, training)
    for batch in meter.batches(walk):
        set_rate(epoch, progress.batches, progress.step)
        meter.add(train_step(args, training, criterion, batch), len(batch))
        progress.step += 1
        progress.epoch, progress.loader = epoch, walk.state_dict()
        if progress.step % args.print_freq == 0:
            meter.show(epoch, len(walk))
        if args.checkpoint_every and progress.step % args.checkpoint_every == 0:
            meter.count()
            save(args, training)
    meter.count()


def make_criterion(args: Settings, model: nn.Module) -> nn.Module:
    """Return what compares the student with the teacher's answers."""
    if isinstance(model, Distiller):
        return DistillationLoss(args.embedding_loss, model.compared)
    return SoftCrossEntropy(args.temp)


def learned(model: nn.Module, args: Settings) -> str:
    """Say what the student learns."""
    if not isinstance(model, Distiller):
        return f"{args.num_classes} classes"
    return "embeddings " + ", ".join(f"{name} of {dim}" for name, dim in model.dims.items())


def validate(
    args: Settings, training: Training, validations: list[Validation]
) -> tuple[float, dict[str, float]]:
    """Validate the student and, where there is one, the average of its weights; print all figures.

    Returns:
        The first validation's percentage, of the average if there is one, or -inf without validations; and all
        figures by their names in a log.
    """
    score, progress, found = -math.inf, training.progress, {}
    models = {"": training.model}
    if training.average is not None:
        models["average of weights, "] = training.average.module
    for whose, model in models.items():
        model.eval()
        share_buffers(model)
        scores = []
        for validation in validations:
            with torch.no_grad(), autocast(args):
                scores.append(validation(model))
            say(
                args,
                f"epoch {progress.epoch}, {progress.seconds:.1f} s of training: {whose}{scores[-1].text}",
            )
        prefix = "eval_ema_" if whose else "eval_"
        found.update({prefix + name: value for one in scores for name, value in one.figures.items()})
        score = scores[0].percent if scores else score
    if args.target_accuracy and not progress.reached and score >= args.target_accuracy:
        progress.reached = progress.seconds
        say(args, f"{args.target_accuracy:g}% reached after {progress.seconds:.1f} s of training")
    return score, found


def make_deterministic(asked: bool) -> None:
    """Use deterministic algorithms if asked to; else let cuDNN choose the fastest."""
    torch.backends.cudnn.benchmark = not asked
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else torch fills all new memory, also each batch of the loader, which takes milliseconds and decides nothing.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
