"""Train a student on stored soft labels: one program, read it from `main` down.

usage: train_student.py -a resnet50 --softlabel_path LABELS [options] IMAGES
       torchrun --nproc-per-node 8 train_student.py ... (the same, one process per GPU; gloo without GPUs)
       srun --ntasks-per-node 8 --gpus-per-task 1 train_student.py ... (likewise; on several machines set MASTER_ADDR)

LABELS is a label set of `slg-wds generate` (or `import`); IMAGES the folder of images with train and val folders, which
is only needed for validation where the set has its images inside. FKD's training flags are taken with FKD's meaning:
-b counts crops over all processes; --epochs counts passes over single crops, so a walk over the images with 4 crops of
each is 4 epochs, and the last --num_crops epochs are walks with one crop of each, validated one by one.

A checkpoint is whole or not there, and a resumed run goes on with the very next batch: the loader's place is in the
checkpoint, and everything random is drawn from (seed, step), so that on one machine with the same threads the weights
are those of a run that was never stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import difflib
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from student_checkpoints import Progress, Training, prepare, read_checkpoint, restore, save, say
from student_flags import check, parse
from student_processes import end_together, launch, start_process_group
from student_validation import Validation, open_validations

from slg_wds import LabelSet, SoftCrossEntropy, SoftLabelLoader, open_labels
from slg_wds.concurrency.cores import cores
from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.concurrency.rank import local_size
from slg_wds.config import parse_store_options
from slg_wds.console import note
from slg_wds.console import prepare as prepare_console
from slg_wds.errors import SlgWdsError, UnknownArchError, UsageError
from slg_wds.labels import SoftLabels, mix
from slg_wds.replay.batch import Batch
from slg_wds.replay.device import DeviceLoader
from slg_wds.teachers.preprocessing import Preprocessing, resolve
from slg_wds.teachers.private import build_private
from slg_wds.teachers.spec import TeacherSpec

AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def main() -> int:
    prepare_console()
    args = parse(__doc__ or "")
    if args.multiprocessing_distributed and "RANK" not in os.environ:
        launch(args)
    try:
        start_process_group(args)
        run(args)
        end_together()
    except SlgWdsError as error:
        note(f"train_student: {error}")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        note("train_student: interrupted; --resume auto goes on from the last checkpoint")
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def run(args: argparse.Namespace) -> None:
    check(args)
    seed, args.seed = args.seed, args.seed or 0
    make_deterministic(seed is not None)
    if args.device.type == "cpu":
        keep_freed_memory()
    found = read_checkpoint(args)
    labels = [] if args.evaluate else open_sets(args)
    args.num_classes = num_classes = classes_of(args, labels, found)
    torch.manual_seed(args.seed)
    model, preprocessing = make_student(args, num_classes, teachers_interpolation(labels))
    training = set_up(args, model)
    if found is not None:
        restore(args, training, found)
    validations = open_validations(args, labels, num_classes, preprocessing, threads_of(args))
    if args.evaluate:
        if not validations:
            raise UsageError("there is nothing to validate on", hint="give IMAGES with a val folder")
        validate(args, training, validations)
        return
    criterion = SoftCrossEntropy(args.temp)
    prepare(args)
    todo = list(walks(training.progress.epoch, args.epochs, args.num_crops))
    loaders = {crops: open_loader(args, labels, preprocessing, crops) for crops in dict(todo).values()}
    say(args, f"student {args.arch}: {parameters(model):,} parameters, {num_classes} classes, input "
        f"{preprocessing}; {args.ranks} x {args.device.type}, {sum(map(len, labels)):,} images")  # fmt: skip
    for epoch, crops in todo:
        train_walk(args, training, criterion, loaders[crops], epoch, crops)
        score = validate(args, training, validations)
        best, training.progress.best = score > training.progress.best, max(score, training.progress.best)
        save(args, training, best)
    say(args, f"trained {training.progress.step:,} steps in {training.progress.seconds:.1f} s")


def walks(epoch: int, epochs: int, num_crops: int) -> Iterator[tuple[int, int]]:
    """(first epoch, crops of an image) of each walk over the images: the last `num_crops` epochs one by one."""
    while epoch < epochs:
        crops = num_crops if epoch + num_crops < epochs else 1
        yield epoch, crops
        epoch += crops


def train_walk(
    args: argparse.Namespace,
    training: Training,
    criterion: nn.Module,
    walk: DeviceLoader,
    epoch: int,
    crops: int,
) -> None:
    """One walk over the images, or what a checkpoint left of it."""
    progress = training.progress
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


def train_step(args: argparse.Namespace, training: Training, criterion: nn.Module, batch: Batch) -> Tensor:
    """One step on a batch of this process; returns its loss, detached, on the device."""
    # All randomness of a step is a function of its number, so none of it needs to be in a checkpoint.
    torch.manual_seed(mixed_seed(args, training.progress.step))
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
        update_average(training.average, training.model, args.ema)
    return loss.detach()


def mixed_seed(args: argparse.Namespace, step: int) -> int:
    return int(np.random.SeedSequence([args.seed, args.rank, step]).generate_state(1, np.uint64)[0] >> 1)


def mixup_cutmix(
    args: argparse.Namespace, step: int, images: Tensor, labels: SoftLabels
) -> tuple[Tensor, SoftLabels]:
    """Blend each crop with another of the batch, or paste a box of it: images [B, 3, S, S] and distributions alike."""
    draw = np.random.default_rng([args.seed, args.rank, step])
    if draw.random() >= args.mixup_cutmix_prob:
        return images, labels
    use_mixup = draw.random() < args.mixup_switch_prob
    share = draw.beta(args.mixup, args.mixup) if use_mixup else draw.beta(args.cutmix, args.cutmix)
    other = torch.from_numpy(draw.permutation(len(images))).to(images.device)
    if use_mixup:
        images = torch.lerp(images[other], images, share)
    else:
        side = images.shape[-1]
        cut, (y, x) = int(side * math.sqrt(1 - share)), draw.integers(0, side, 2).tolist()
        top, bottom = max(y - cut // 2, 0), min(y + cut // 2, side)
        left, right = max(x - cut // 2, 0), min(x + cut // 2, side)
        pasted = images[other, :, top:bottom, left:right]
        images = images.clone(memory_format=torch.preserve_format)  # the batch may be used again
        images[:, :, top:bottom, left:right] = pasted
        share = 1 - (bottom - top) * (right - left) / side**2  # what the edges left of the box
    return images, mix([labels, labels[other]], [share, 1 - share])


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)


def set_rate(args: argparse.Namespace, optimizer: torch.optim.Optimizer, epoch: int, step: int) -> None:
    """FKD's: constant within a walk, by its first epoch; our --warmup on top."""
    if args.cos:
        rate = args.lr * 0.5 * (1 + math.cos(math.pi * epoch / args.epochs))
    else:
        rate = args.lr * 0.1 ** sum(epoch >= milestone for milestone in args.schedule)
    for group in optimizer.param_groups:
        group["lr"] = rate * min(1.0, (step + 1) / (args.warmup + 1))


class Meter:
    """Loss and speed since the last line. The loss stays on the device until it is shown."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.begin, self.start = args, time.monotonic(), time.monotonic()
        self.loss, self.steps, self.crops = torch.zeros((), device=args.device), 0, 0

    def add(self, loss: Tensor, crops: int) -> None:
        self.loss += loss.float()
        self.steps += 1
        self.crops += crops * self.args.ranks

    def show(self, epoch: int, training: Training, steps: int) -> float:
        """Print a line and return the seconds since the last call of `lap` or this."""
        loss = self.loss.item() / self.steps  # waits for the device, so the time is that of finished steps
        speed = self.crops / (time.monotonic() - self.start)
        done = (training.progress.loader or {}).get("batches", 0)
        rate = training.optimizer.param_groups[0]["lr"]
        say(self.args, f"epoch {epoch} [{done}/{steps}] loss {loss:.4f} lr {rate:.5f} {speed:,.0f} images/s")
        if not math.isfinite(loss):
            raise SlgWdsError(
                f"the loss is {loss} at step {training.progress.step}", hint="lower --lr or --amp off"
            )
        self.loss.zero_()
        self.steps = self.crops = 0
        self.start = time.monotonic()
        return self.lap()

    def lap(self) -> float:
        seconds, self.begin = time.monotonic() - self.begin, time.monotonic()
        return seconds


# --- The student. ---


def make_student(
    args: argparse.Namespace, num_classes: int, interpolation: str | None
) -> tuple[nn.Module, Preprocessing]:
    """The student on the CPU, and how it is shown pixels: as it wants them, resized as its teacher's were."""
    if ":" in args.arch and not args.arch.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        built = build_private(TeacherSpec("private", args.arch))
        model, config, origin = built.module, dict(built.config), built.config_from
    else:
        import timm
        from timm import data

        if ":" not in args.arch and not timm.is_model(args.arch.partition(".")[0]):
            near = difflib.get_close_matches(args.arch, timm.list_models(), 4)
            raise UnknownArchError(
                f"timm has no model {args.arch!r}", hint=f"near names are {', '.join(near)}"
            )
        model = timm.create_model(args.arch, pretrained=args.pretrained, num_classes=num_classes)
        resolve_config: Any = data.config.resolve_model_data_config
        config, origin = resolve_config(model), "timm"
    resize: Any = getattr(model, "set_input_size", None)
    if args.size is not None and resize is not None:  # a model made for one size
        resize(img_size=args.size)
    overrides = {"input_size": args.size, "interpolation": args.interpolation or interpolation}
    return model, resolve(config, origin, overrides)[0]


def teachers_interpolation(labels: list[LabelSet]) -> str | None:
    teachers = labels[0].identity.get("teachers") if labels else None
    return teachers[0].get("interpolation") if teachers else None


def set_up(args: argparse.Namespace, model: nn.Module) -> Training:
    """Move the student to the device and wrap it; its optimizer."""
    if args.sync_bn and args.ranks > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    model.to(args.device, memory_format=layout)  # type: ignore[call-overload]
    average = copy.deepcopy(model).requires_grad_(False).eval() if args.ema else None
    net: nn.Module = model
    if args.ranks > 1:
        ids = [args.device.index] if args.device.type == "cuda" else None
        net = nn.parallel.DistributedDataParallel(model, device_ids=ids)
    if args.compile:
        net = torch.compile(net)  # type: ignore[assignment]
    optimizer: torch.optim.Optimizer
    if args.opt == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay
        )
    else:
        optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay)
    scaler = torch.amp.GradScaler(args.device.type, enabled=args.amp == "fp16")
    return Training(model, net, average, optimizer, scaler, Progress(epoch=args.start_epoch))


def make_deterministic(asked: bool) -> None:
    torch.backends.cudnn.benchmark = not asked
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def autocast(args: argparse.Namespace) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(args.device.type, AMP[args.amp], enabled=AMP[args.amp] is not None)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- Labels and images. ---


def open_sets(args: argparse.Namespace) -> list[LabelSet]:
    options = parse_store_options(args.store_option)
    return [open_labels(url, store_options=options) for url in args.softlabel_path]


def classes_of(args: argparse.Namespace, labels: list[LabelSet], found: dict[str, Any] | None) -> int:
    if not labels:
        return args.num_classes or (found or {}).get("num_classes") or 1000
    stored = labels[0].num_classes
    if args.num_classes not in (None, stored):
        raise UsageError(
            f"--num_classes {args.num_classes}, but the labels are over {stored}", url=labels[0].url
        )
    return stored


def open_loader(
    args: argparse.Namespace, labels: list[LabelSet], preprocessing: Preprocessing, crops: int
) -> DeviceLoader:
    """The loader of walks with so many crops of an image, its batches on the device."""
    embedded = any(one.identity.get("embed_images") for one in labels)
    if not embedded and args.data is None:
        raise UsageError("the label set has no images in it", hint="give IMAGES", url=labels[0].url)
    loader = SoftLabelLoader(
        labels,
        None if embedded else args.data,
        # As in FKD, the images of a batch are rounded up, and walks with one crop have batches as large.
        global_batch_size=math.ceil(args.batch_size / args.num_crops) * args.num_crops,
        crops_per_image=crops,
        size=preprocessing.input_size,
        interpolation=preprocessing.interpolation,
        rule="full" if args.soft_label_type == "ori" else args.soft_label_type,
        weights=args.label_weights,
        crop_filter=args.crop_filter and tuple(args.crop_filter),
        seed=args.seed,
        threads=threads_of(args),
        cache_dir=args.cache_dir,
        store_options=parse_store_options(args.store_option),
    )
    return loader.to(args.device, preprocessing.mean, preprocessing.std)


def threads_of(args: argparse.Namespace) -> int:
    return math.ceil(args.workers / local_size()) if args.workers else cores()


def validate(args: argparse.Namespace, training: Training, validations: list[Validation]) -> float:
    """Print all figures; return the first validation's percentage, the average's if there is one (-inf: none)."""
    score, progress = -math.inf, training.progress
    for whose, model in {"": training.model, "average of weights, ": training.average}.items():
        if model is None:
            continue
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


if __name__ == "__main__":
    sys.exit(main())
