"""The flags of train_student.py: FKD's, with its meaning, and ours."""

from __future__ import annotations

import argparse
from typing import NoReturn

from slg_wds.console import note
from slg_wds.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        note(f"{self.prog}: {message} (--help lists the flags)")
        self.exit(2)


def parse(description: str, arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        prog="train_student", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # fmt: off
    add = parser.add_argument
    add("data", nargs="?", help="images: a folder with train and val folders")
    # FKD's own.
    add("-a", "--arch", default="resnet50", help="student: a model of timm, or module:factory, file.py:factory")
    add("-j", "--workers", type=int, help="threads that decode, of all processes of a machine (default: its cores)")
    add("--epochs", type=int, default=300, help="passes over single crops")
    add("--start-epoch", type=int, default=0, help="begin here without a checkpoint")
    add("-b", "--batch-size", type=int, default=1024, help="crops of a batch, over all processes")
    add("--lr", "--learning-rate", type=float, default=0.1)
    add("--schedule", type=int, nargs="*", default=[120, 240], help="epochs that divide the rate by 10, without --cos")
    add("--momentum", type=float, default=0.9)
    add("--wd", "--weight-decay", type=float, default=1e-4, dest="weight_decay")
    add("-p", "--print-freq", type=int, default=10, help="steps between lines")
    add("--resume", default="", metavar="PATH", help="a checkpoint; `auto`: the one of --save_checkpoint_path if any")
    add("-e", "--evaluate", action="store_true", help="only validate")
    add("--pretrained", action="store_true", help="begin with timm's published weights")
    add("--seed", type=int, help="of weights, order, mixing (default 0); if given, deterministic algorithms")
    add("--num_crops", type=int, default=4, help="crops of an image in a batch")
    add("--softlabel_path", action="append", metavar="URL", help="label set; several: their mean (--label-weights)")
    add("--temp", type=float, default=1.0, help="divides the student's logits")
    add("--cos", action="store_true", help="cosine schedule")
    add("--save_checkpoint_path", default="./FKD_checkpoints_output", metavar="PATH")
    add("--soft_label_type", help="rule of recovery; `ori`: all probabilities (default: the label set's own)")
    add("--num_classes", type=int, help="default: the label set's")
    add("--mixup_cutmix", action="store_true", help="mix crops of a batch")
    add("--mixup", type=float, default=0.8, help="alpha of mixup's Beta distribution")
    add("--cutmix", type=float, default=1.0, help="alpha of CutMix's")
    add("--mixup_cutmix_prob", type=float, default=1.0, help="share of batches that are mixed")
    add("--mixup_switch_prob", type=float, default=0.5, help="share of those mixed by mixup, the others by CutMix")
    # FKD's launcher. torchrun is the other way.
    add("--multiprocessing-distributed", action="store_true", help="start torchrun with a process per GPU")
    add("--world-size", type=int, default=1, help="machines of that")
    add("--rank", type=int, default=0, help="this machine's number")
    add("--dist-url", default="tcp://127.0.0.1:29500", help="tcp://HOST:PORT of machine 0")
    add("--dist-backend", help="default: nccl with GPUs, else gloo")
    add("--gpu", type=int, help="this GPU only")
    # Ours.
    add("--label-weights", type=float, nargs="+", help="of several label sets")
    add("--crop-filter", nargs=3, metavar=("MEASURE", "LOW", "HIGH"), help="only crops with confidence or tail inside")
    add("--size", type=int, help="side of the student's input (default: the model's own)")
    add("--interpolation", help="resize of crops (default: the teacher's)")
    add("--opt", choices=["sgd", "adamw"], default="sgd")
    add("--warmup", type=int, default=0, metavar="STEPS", help="steps over which the rate rises")
    add("--amp", choices=["off", "bf16", "fp16"], default="off")
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    add("--compile", action="store_true")
    add("--sync-bn", action="store_true", help="batch norm over all GPUs")
    add("--ema", type=float, default=0.0, metavar="DECAY", help="keep and validate a moving average of the weights")
    add("--checkpoint-every", type=int, default=0, metavar="STEPS", help="beside the end of each walk")
    add("--val-softlabels", metavar="URL", help="label set of held-out images: KL to the teacher, agreement")
    add("--val-images", metavar="URL", help="their images (default: IMAGES)")
    add("--class-map", help="file of lines `folder number`, for val folders that are not the labels' own")
    add("--target-accuracy", type=float, default=0.0, metavar="PERCENT", help="say when top-1 reaches it")
    add("--cache-dir", help="of remote label shards")
    add("--store-option", action="append", default=[], metavar="KEY=VALUE", help="of an object store")
    # fmt: on
    args = parser.parse_args(arguments)
    args.softlabel_path = args.softlabel_path or ["./soft_label"]
    return args


def check(args: argparse.Namespace) -> None:
    """Raise UsageError for flags that cannot be, before anything slow starts."""
    for name in ("epochs", "batch_size", "print_freq", "num_crops"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} {getattr(args, name)} is below 1")
    if not 0 <= args.start_epoch < args.epochs:
        raise UsageError(f"--start-epoch {args.start_epoch} is not below --epochs {args.epochs}")
    for name in ("mixup_cutmix_prob", "mixup_switch_prob", "ema"):
        if not 0 <= getattr(args, name) <= 1:
            raise UsageError(f"--{name} {getattr(args, name)} is not inside 0..1")
    if args.seed is not None and not 0 <= args.seed < 2**63:
        raise UsageError(f"--seed {args.seed} is not inside 0..2^63-1")
    if args.mixup_cutmix and min(args.mixup, args.cutmix) <= 0:
        raise UsageError(
            "--mixup and --cutmix are above 0; --mixup_switch_prob 0 or 1 switches one of them off"
        )
    if args.amp == "fp16" and args.device.type == "cpu":
        raise UsageError("--amp fp16 needs a GPU", hint="take --amp bf16")
    if args.sync_bn and args.device.type == "cpu":
        raise UsageError("--sync-bn needs GPUs")
    if args.evaluate and not args.resume and not args.pretrained:
        raise UsageError("-e needs weights", hint="give --resume CHECKPOINT or --pretrained")
    if args.crop_filter:
        try:
            args.crop_filter = [args.crop_filter[0], *map(float, args.crop_filter[1:])]
        except ValueError:
            raise UsageError(f"--crop-filter {' '.join(args.crop_filter)} is not MEASURE LOW HIGH") from None
