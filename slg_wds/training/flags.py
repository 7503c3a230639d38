"""The flags of `slg-wds train`: FKD's with FKD's meaning, and our own.

This is argparse and not a config dataclass: FKD's command lines must work as they are, with their abbreviations and
with both spellings, -b and --batch-size. It imports no torch, so that --help is quick.
"""

from __future__ import annotations

import argparse
import ast
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from slg_wds.console import note
from slg_wds.errors import UsageError

if TYPE_CHECKING:
    import torch

DESCRIPTION = """\
Train a student on a label set of `slg-wds generate` (or `import`).

    slg-wds train -a resnet50 --softlabel_path LABELS [flags] IMAGES
    torchrun --nproc-per-node 8 -m slg_wds train ...          one process per GPU; without GPUs they meet through gloo
    srun --ntasks-per-node 8 --gpus-per-task 1 slg-wds train ...     the same; on several machines set MASTER_ADDR

IMAGES is a folder with the folders train and val. A set with embedded images needs it for validation only.
FKD's flags have FKD's meaning: -b counts crops over all processes. --epochs counts passes over single crops: a walk
over the images with 4 crops of each is 4 epochs. The last --num_crops epochs are walks with one crop of each image,
with a validation after each.

A checkpoint is written whole or not at all. A resumed run goes on with the very next batch, and on one machine with
the same number of threads it ends with the same weights, bit for bit, as a run that was never stopped.
"""


class Settings(argparse.Namespace):
    """The parsed flags. The last four are not flags: parse and start_process_group set them."""

    data: str | None
    config: str | None
    arch: str
    drop_path: float | None
    model_kwargs: dict[str, Any]
    workers: int | None
    epochs: int
    start_epoch: int
    batch_size: int
    lr: float
    schedule: list[int]
    momentum: float
    weight_decay: float
    print_freq: int
    resume: str
    evaluate: bool
    pretrained: bool
    seed: int
    num_crops: int
    softlabel_path: list[str]
    distill: str
    embedding_loss: str
    embedding_norm: str
    knn_images: int
    temp: float
    label_temp: float | None
    label_temp_end: float | None
    cos: bool
    save_checkpoint_path: str
    soft_label_type: str | None
    num_classes: int | None
    mixup_cutmix: bool
    mixup: float
    cutmix: float
    mixup_cutmix_prob: float
    mixup_switch_prob: float
    multiprocessing_distributed: bool
    world_size: int
    rank: int
    dist_url: str
    dist_backend: str | None
    gpu: int | None
    label_weights: list[float] | None
    crop_filter: Any
    size: int | None
    interpolation: str | None
    opt: str
    opt_kwargs: dict[str, Any]
    filter_bias_and_bn: bool
    fused: bool | None
    clip_grad: float | None
    clip_mode: str
    grad_accum_steps: int
    warmup: int
    sched: str | None
    sched_kwargs: dict[str, Any]
    warmup_epochs: float
    warmup_lr: float
    min_lr: float
    amp: str
    channels_last: bool
    compile: bool
    sync_bn: bool
    ema: float
    checkpoint_every: int
    log: list[str]
    val_softlabels: str | None
    val_images: str | None
    class_map: str | None
    target_accuracy: float
    cache_dir: str | None
    store_option: list[str]
    deterministic: bool
    device: torch.device
    ranks: int
    flags: dict[str, Any]

    @property
    def distills(self) -> bool:
        """Whether the student learns embeddings in place of labels."""
        return self.distill == "embedding"


FKD = ("num_classes", "soft_label_type", "mixup_cutmix")  # flags that are written as in FKD


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line and ends with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message and end the process."""
        note(f"{self.prog}: {message} (--help lists the flags)")
        self.exit(2)


class Several(argparse.Action):
    """A flag that may be given several times; what is given takes the place of the default."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: Any = None
    ) -> None:
        """Add a value to those that were given before."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if before is self.default else before), values])


class KeyValues(argparse.Action):
    """A flag of words KEY=VALUE, as timm has them: numbers, lists and None are read as Python writes them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: Any = None
    ) -> None:
        """Store the words as a mapping."""
        found: dict[str, Any] = {}
        for word in values:
            key, equals, text = word.partition("=")
            if not key or not equals:
                text = f"{word!r} is not KEY=VALUE; IMAGES stand before it or after another flag"
                raise argparse.ArgumentError(self, text)
            try:
                found[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                found[key] = text
        setattr(namespace, self.dest, found)


def parse(arguments: Sequence[str] | None = None, prog: str = "slg-wds train") -> Settings:
    """Parse flags; None for those of the process. A mistake and --help end the process."""
    parser = make_parser(prog)
    early = Parser(prog=prog, add_help=False, allow_abbrev=False)
    early.add_argument("-c", "--config")
    path = early.parse_known_args(arguments)[0].config
    if path is not None:
        from slg_wds.training.args_file import read_args

        try:
            parser.set_defaults(**read_args(path, make_parser(f"{prog} --config {path}")))
        except UsageError as error:
            parser.error(str(error))
    settings = parser.parse_args(arguments, Settings())
    if settings.config != path:
        parser.error("--config must be written out")
    settings.flags = {name: value for name, value in vars(settings).items() if name != "config"}
    settings.deterministic, settings.seed = settings.seed is not None, settings.seed or 0
    return settings


def make_parser(prog: str) -> Parser:
    """Return the parser of all flags, in groups: what a newcomer needs first, the launcher last."""
    parser = Parser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", metavar="IMAGES", help="folder with the folders train and val")
    for add_flags in (
        _student,
        _labels,
        _embeddings,
        _optimization,
        _learning_rate,
        _mixing,
        _validation,
        _running,
        _launching,
    ):
        add_flags(parser)
    return parser


# fmt: off
def _student(parser: Parser) -> None:
    add = parser.add_argument_group("student").add_argument
    add("-a", "--arch", default="resnet50", help="a model of timm, or module:factory, file.py:factory (resnet50)")
    add("--pretrained", action="store_true", help="start from timm's published weights")
    add("--drop-path", type=float, metavar="P", help="stochastic depth: share of residual branches dropped in training "
        "(default: the model's own)")
    add("--model-kwargs", nargs="*", action=KeyValues, default={}, metavar="KEY=VALUE", help="other arguments of "
        "timm's model, for example drop_rate=0.1")
    add("--num_classes", type=int, metavar="N", help="classes of the student (default: those of the label set)")
    add("--size", type=int, metavar="PIXELS", help="side of the student's input (default: the model's own)")
    add("--interpolation", metavar="NAME", help="how crops are resized: bicubic, bilinear or nearest (default: as "
        "for the teacher)")


def _labels(parser: Parser) -> None:
    add = parser.add_argument_group("labels and crops").add_argument
    add("--softlabel_path", action=Several, default=["./soft_label"], metavar="URL", help="label set; give it several "
        "times for the mean of several (./soft_label)")
    add("--label-weights", type=float, nargs="+", metavar="W", help="weights of several label sets in their mean")
    add("--num_crops", type=int, default=4, metavar="N", help="crops of an image in a batch (4)")
    add("--soft_label_type", metavar="TYPE", help="how distributions are recovered, for example marginal_smoothing_k5; "
        "`ori`: from all stored probabilities (default: the label set's own type)")
    add("--label-temp", type=float, metavar="T", help="temperature of the teacher, at which labels are read (default: "
        "as they were made)")
    add("--label-temp-end", type=float, metavar="T", help="that of the last epoch: from the first one on, --label-temp "
        "goes there evenly (default: it stays)")
    add("--crop-filter", nargs=3, metavar=("MEASURE", "LOW", "HIGH"), help="train only on crops whose `confidence` or "
        "`tail` is between LOW and HIGH")
    add("--cache-dir", metavar="FOLDER", help="keep label shards of a remote set here")
    add("--store-option", action=Several, default=[], metavar="KEY=VALUE", help="setting of object storage; may be "
        "given several times")


def _embeddings(parser: Parser) -> None:
    text = "A student of embeddings has no head: a linear projector maps its features to each teacher's width. \
Checkpoints keep the projectors apart, so that timm.create_model(ARCH, num_classes=0) loads the student."
    add = parser.add_argument_group("embeddings", text).add_argument
    add("--distill", choices=["labels", "embedding"], default="labels", help="what the student learns: `embedding` for "
        "sets of `generate --output embedding`; those of several sets are learned together (labels)")
    add("--embedding-loss", choices=["cosine", "smooth_l1", "both", "relation"], default="cosine", help="`both`: 0.9 "
        "of the cosine distance and 0.1 of smooth L1, as in AM-RADIO; `relation`: which crops of a process's batch are "
        "alike, without a projector (cosine)")
    add("--embedding-norm", choices=["none", "unit", "layer"], default="none", help="before they are compared, divide "
        "features and embeddings by their length (`unit`), or bring them to mean 0 and deviation 1 (`layer`) (none)")
    add("--knn-images", type=int, default=10000, metavar="N", help="images of IMAGES/train, drawn at random, among "
        "which those of IMAGES/val find their neighbours in validation (10000)")


def _optimization(parser: Parser) -> None:
    add = parser.add_argument_group("optimization").add_argument
    add("--epochs", type=int, default=300, metavar="N", help="passes over single crops (300)")
    add("--start-epoch", type=int, default=0, metavar="N", help="start here, without a checkpoint (0)")
    add("-b", "--batch-size", type=int, default=1024, metavar="N", help="crops in a batch, over all processes (1024)")
    add("--grad-accum-steps", type=int, default=1, metavar="N", help="each process takes its part of a batch in N "
        "pieces, one after the other, and adds up their gradients: less memory, and -b means the same (1)")
    add("--opt", choices=["sgd", "adamw"], default="sgd", help="optimizer (sgd)")
    add("--opt-kwargs", nargs="*", action=KeyValues, default={}, metavar="KEY=VALUE", help="other arguments of torch's "
        "optimizer, for example nesterov=True or betas=(0.9,0.95)")
    add("--momentum", type=float, default=0.9, metavar="M", help="of sgd (0.9)")
    add("--wd", "--weight-decay", type=float, default=1e-4, dest="weight_decay", metavar="W", help="factor (0.0001)")
    add("--filter-bias-and-bn", action="store_true", help="no weight decay of biases, of normalisation layers and of "
        "what the model names (positions, class token), as in timm; FKD's CNNs decay all")
    add("--clip-grad", type=float, metavar="NORM", help="clip gradients to this (default: none)")
    add("--clip-mode", choices=["norm", "value", "agc"], default="norm", help="what --clip-grad bounds: the norm of "
        "all gradients, each value, or the norm relative to that of the weights (norm)")
    add("--fused", action=argparse.BooleanOptionalAction, help="torch's fused optimizer (default: on GPUs)")
    add("--temp", type=float, default=1.0, metavar="T", help="temperature: the student's logits are divided by it (1)")
    add("--ema", type=float, default=0.0, metavar="DECAY", help="also keep and validate an exponential moving average "
        "of the weights (0: none)")
    add("--amp", choices=["off", "bf16", "fp16"], default="off", help="mixed precision (off)")
    add("--seed", type=int, metavar="N", help="of initial weights, order and mixing (0); if given, deterministic "
        "algorithms")


def _learning_rate(parser: Parser) -> None:
    text = "FKD's schedules change the rate between walks. --sched takes timm's, which change it at every step."
    add = parser.add_argument_group("learning rate", text).add_argument
    add("--lr", "--learning-rate", type=float, default=0.1, metavar="RATE", help="initial learning rate (0.1)")
    add("--cos", action="store_true", help="FKD's cosine schedule in place of --schedule")
    add("--schedule", type=int, nargs="*", default=[120, 240], metavar="EPOCH", help="epochs that divide the rate by "
        "10 (120 240)")
    add("--warmup", type=int, default=0, metavar="STEPS", help="steps over which the rate rises to --lr (0)")
    add("--sched", metavar="NAME", help="a schedule of timm: cosine, tanh, step, multistep (at --schedule), poly, ... "
        "(default: FKD's)")
    add("--warmup-epochs", type=float, default=0.0, metavar="N", help="with --sched: the first epochs, over which the "
        "rate rises to --lr (0)")
    add("--warmup-lr", type=float, default=1e-5, metavar="RATE", help="with --sched: the rate at their start (1e-05)")
    add("--min-lr", type=float, default=0.0, metavar="RATE", help="with --sched: the rate at the end (0)")
    add("--sched-kwargs", nargs="*", action=KeyValues, default={}, metavar="KEY=VALUE", help="other arguments of "
        "timm's create_scheduler_v2, in epochs, for example decay_epochs=30 or cycle_limit=3")


def _mixing(parser: Parser) -> None:
    add = parser.add_argument_group("mixup and CutMix").add_argument
    add("--mixup_cutmix", action="store_true", help="mix the crops of a batch, and their labels with them; refused for "
        "label sets whose views were mixed when they were labelled (generate --mixup, --cutmix), which need no flag")
    add("--mixup", type=float, default=0.8, metavar="ALPHA", help="of mixup's Beta distribution (0.8)")
    add("--cutmix", type=float, default=1.0, metavar="ALPHA", help="of CutMix's Beta distribution (1)")
    add("--mixup_cutmix_prob", type=float, default=1.0, metavar="P", help="share of batches that are mixed (1)")
    add("--mixup_switch_prob", type=float, default=0.5, metavar="P", help="share of those that mixup mixes; CutMix "
        "mixes the others (0.5)")


def _validation(parser: Parser) -> None:
    add = parser.add_argument_group("validation").add_argument
    add("-e", "--evaluate", action="store_true", help="only validate the weights of --resume or --pretrained")
    add("--class-map", metavar="FILE", help="lines `folder number`, if the folders of val are not named as the labels' "
        "classes")
    add("--val-softlabels", metavar="URL", help="label set of held-out images: KL divergence from the teacher, and "
        "agreement with it; of embeddings, the cosine to the teacher's")
    add("--val-images", metavar="URL", help="the images of --val-softlabels (default: IMAGES)")
    add("--target-accuracy", type=float, default=0.0, metavar="PERCENT",
        help="print when top-1 accuracy reaches this (0: never)")


def _running(parser: Parser) -> None:
    add = parser.add_argument_group("checkpoints and speed").add_argument
    add("--save_checkpoint_path", default="./FKD_checkpoints_output", metavar="FOLDER", help="where checkpoints go "
        "(./FKD_checkpoints_output)")
    add("--resume", default="", metavar="FILE", help="a checkpoint to go on from; `auto`: that of "
        "--save_checkpoint_path, if there is one")
    add("--checkpoint-every", type=int, default=0, metavar="STEPS", help="also within a walk (0: only at its end)")
    add("-p", "--print-freq", type=int, default=10, metavar="STEPS", help="steps between printed lines (10)")
    add("--log", action=Several, choices=["csv", "tensorboard", "wandb"], default=["csv"], help="where each walk's "
        "figures go beside summary.csv in the folder of checkpoints; may be given several times")
    add("-c", "--config", metavar="FILE", help="take flags from a file such as args.yaml, which each run leaves beside "
        "its checkpoints; flags of the command line come first")
    add("-j", "--workers", type=int, metavar="N", help="threads that decode images, over all processes of a machine "
        "(default: its cores)")
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True, help="memory layout of weights and "
        "activations")
    add("--compile", action="store_true", help="torch.compile the student")


def _launching(parser: Parser) -> None:
    add = parser.add_argument_group("processes and GPUs", "With torchrun or srun only --sync-bn matters.").add_argument
    add("--sync-bn", action="store_true", help="batch normalisation over all GPUs")
    add("--gpu", type=int, metavar="N", help="use this GPU only")
    add("--multiprocessing-distributed", action="store_true", help="start torchrun with one process per GPU")
    add("--world-size", type=int, default=1, metavar="N", help="machines that run this command (1)")
    add("--rank", type=int, default=0, metavar="N", help="number of this machine (0)")
    add("--dist-url", default="tcp://127.0.0.1:29500", metavar="URL", help="where machine 0 is, tcp://HOST:PORT "
        "(tcp://127.0.0.1:29500)")
    add("--dist-backend", metavar="NAME", help="default: nccl with GPUs, else gloo")
# fmt: on


def check(args: Settings) -> None:
    """Refuse flags that contradict each other or the machine, before anything slow starts.

    Raises:
        UsageError: a flag is out of range, or needs something that is missing.
    """
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


def _check_ranges(args: Settings) -> None:
    from slg_wds.format.recovery.temperature import checked_temperature  # imports numpy

    _check_range(args, 1, math.inf, "epochs", "batch-size", "print-freq", "num_crops", "grad-accum-steps")
    _check_range(args, 1, math.inf, "knn-images")
    _check_range(args, 0, 1, "mixup_cutmix_prob", "mixup_switch_prob", "ema", "drop-path")
    _check_range(args, 0, math.inf, "warmup-epochs", "warmup-lr", "min-lr")
    _check_range(args, 0, 2**63 - 1, "seed")
    for name in ("temp", "label_temp", "label_temp_end"):
        if getattr(args, name) is not None:
            checked_temperature(getattr(args, name), f"--{name.replace('_', '-')}")
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
            raise UsageError(f"--{name if name in FKD else name.replace('_', '-')} is for {other}")
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
