"""Flags that contradict each other or the machine are refused before anything slow starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from slg_wds.config.checks import empty
from slg_wds.errors import UsageError
from slg_wds.labelset.places import output_path
from slg_wds.teachers.preprocessing import LARGEST_INPUT
from slg_wds.training.flags.definitions import make_parser
from slg_wds.training.flags.settings import Settings

if TYPE_CHECKING:
    from slg_wds.labelset.labelset import LabelSet

# Flags that are written as in FKD.
FKD = ("num_classes", "soft_label_type", "mixup_cutmix", "softlabel_path", "save_checkpoint_path")


def check(args: Settings) -> None:
    """Refuse flags that contradict each other or the machine, before anything slow starts.

    Raises:
        UsageError: a flag is out of range, or needs something that is missing.
    """
    _check_not_empty(args)
    args.save_checkpoint_path = str(output_path(args.save_checkpoint_path))
    _check_ranges(args)
    _check_schedule(args)
    _check_distill(args)
    if args.label_temp is None and args.label_temp_end is not None:
        raise UsageError("--label-temp-end needs --label-temp", hint="the temperature of the first epoch")
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


def _check_not_empty(args: Settings) -> None:
    usual = make_parser("")
    for name, value in args.flags.items():
        if "" in (value if isinstance(value, list) else [value]) and value != usual.get_default(name):
            raise UsageError(empty("IMAGES" if name == "data" else _flag(name)))


def _flag(name: str) -> str:
    """Return a flag as it is written, by its name among the settings."""
    return f"--{name if name in FKD else name.replace('_', '-')}"


def check_chains(sets: Sequence[LabelSet]) -> None:
    """Refuse a set without the one that it extends, and say it in flags. Raises UsageError."""
    from slg_wds.labelset.combining.joining import chains  # imports numpy

    chains(sets, "--softlabel_path OLD --softlabel_path NEW")


def _check_ranges(args: Settings) -> None:
    from slg_wds.format.recovery.temperature import checked_temperature  # imports numpy

    _check_range(args, 1, math.inf, "epochs", "batch-size", "print-freq", "num_crops", "grad-accum-steps")
    _check_range(args, 1, math.inf, "knn-images")
    _check_range(args, 1, LARGEST_INPUT, "size")
    _check_range(args, 0, 1, "mixup_cutmix_prob", "mixup_switch_prob", "ema", "drop-path")
    _check_range(args, 0, math.inf, "warmup", "warmup-epochs", "warmup-lr", "min-lr", "checkpoint-every")
    _check_range(args, 0, 2**63 - 1, "seed")
    for name in ("temp", "label_temp", "label_temp_end"):
        if getattr(args, name) is not None:
            checked_temperature(getattr(args, name), f"--{name.replace('_', '-')}")
    if args.ema == 1:
        raise UsageError(
            "--ema 1 would keep the first weights for ever", hint="0.9999 is usual, 0 keeps none"
        )
    if not 0 <= args.start_epoch < args.epochs:
        raise UsageError(f"--start-epoch {args.start_epoch} is not below --epochs {args.epochs}")
    if args.clip_grad is not None and not args.clip_grad > 0:
        raise UsageError(f"--clip-grad {args.clip_grad} is not above 0", hint="without it nothing is clipped")
    if args.grad_accum_steps > (share := args.batch_size // args.ranks):
        raise UsageError(
            f"--grad-accum-steps {args.grad_accum_steps}, but a process has {share} crops of a batch"
        )


def _check_range(args: Settings, least: int, most: float, *names: str) -> None:
    for name in names:
        value = getattr(args, name.replace("-", "_"))
        if value is not None and not least <= value <= most:
            inside = f"is not inside {least}..{most}" if most < math.inf else f"is below {least}"
            raise UsageError(f"--{name} {value} {inside}")


def _check_schedule(args: Settings) -> None:
    if args.sched and (args.cos or args.warmup):
        raise UsageError(
            "--cos and --warmup are of FKD's schedules, not of --sched",
            hint="take --sched cosine and --warmup-epochs",
        )
    if not args.sched and (args.warmup_epochs or args.min_lr or args.sched_kwargs):
        raise UsageError(
            "--warmup-epochs, --min-lr and --sched-kwargs are of timm's schedules", hint="give --sched"
        )


def _check_distill(args: Settings) -> None:
    """Refuse flags of labels where embeddings are learned, and the other way round."""
    usual = make_parser("")
    flags: tuple[str, ...] = ("embedding_loss", "embedding_norm", "knn_images")
    if args.distills:
        flags = (
            "num_classes", "soft_label_type", "label_weights", "label_temp", "label_temp_end", "temp", "crop_filter",
            "mixup_cutmix", "class_map",
        )  # fmt: skip
    for name in flags:
        if getattr(args, name) != usual.get_default(name):
            other = "labels, and --distill embedding learns none" if args.distills else "--distill embedding"
            raise UsageError(f"{_flag(name)} is for {other}")
    if args.distills and args.embedding_loss == "relation":
        if args.grad_accum_steps > 1:
            raise UsageError(
                "--embedding-loss relation compares the crops of a batch, which --grad-accum-steps parts"
            )
        if args.val_softlabels:
            raise UsageError(
                "--val-softlabels needs a projector, and --embedding-loss relation has none",
                hint="IMAGES with train and val is validated by k-NN",
            )
