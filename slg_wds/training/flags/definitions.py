"""Every flag of `slg-wds train`, in the groups of --help.

This is argparse and not a config dataclass: FKD's command lines must work as they are, with their abbreviations and
with both spellings, -b and --batch-size.
"""

from __future__ import annotations

import argparse

from slg_wds.config.training import BATCH_SIZE, NUM_CROPS, SOFTLABEL_PATH
from slg_wds.training.flags.parsers import KeyValues, Parser, Several

DESCRIPTION = """\
Train a student on a label set of `slg-wds generate` (or `import`).

    slg-wds train -a resnet50 --softlabel_path LABELS [flags] IMAGES
    torchrun --nproc-per-node 8 -m slg_wds train ...          one process per GPU; without GPUs they meet through gloo
    srun --ntasks 8 --gpus-per-task 1 --cpus-per-task 16 --kill-on-bad-exit slg-wds train ...   the same, as tasks of
             Slurm: each with cores, without which it has one, and all end where one fails; on several machines set
             MASTER_ADDR

IMAGES is a folder with the folders train and val. A set with embedded images needs it for validation only.
FKD's flags have FKD's meaning: -b counts crops over all processes. --epochs counts passes over single crops: a walk
over the images with 4 crops of each is 4 epochs. The last --num_crops epochs are walks with one crop of each image,
with a validation after each.

A checkpoint is written whole or not at all. A resumed run goes on with the very next batch, and on one machine with
the same number of threads it ends with the same weights, bit for bit, as a run that was never stopped. On a GPU that
takes --seed, since its fastest algorithms give other bits in each run.
"""


def make_parser(prog: str) -> Parser:
    """Return the parser of all flags, in groups: what a newcomer needs first, the launcher last."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [-h] [OPTIONS] [IMAGES]",  # argparse would list all flags, on thirty lines
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    add("--softlabel_path", action=Several, default=[SOFTLABEL_PATH], metavar="URL", help="label set; give it several "
        "times for the mean of several (./soft_label)")
    add("--label-weights", type=float, nargs="+", metavar="W", help="weights of several label sets in their mean")
    add("--num_crops", type=int, default=NUM_CROPS, metavar="N", help="crops of an image in a batch (4)")
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
    add("-b", "--batch-size", type=int, default=BATCH_SIZE, metavar="N", help="crops in a batch, over all "
        "processes, rounded up to whole images (1024)")
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
        "timm's create_scheduler_v2, in epochs, for example decay_epochs=30, or num_epochs=100 cycle_limit=3 for three "
        "cycles of 100 of --epochs 300")


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
    add("--class-map", metavar="FILE", help="lines `folder number`, with the student's class numbers, if the folders "
        "of val are not named as those that it learns from")
    add("--val-softlabels", metavar="URL", help="label set of held-out images: KL divergence from the teacher, and "
        "agreement with it; of embeddings, the cosine to the teacher's")
    add("--val-images", metavar="URL", help="the images of --val-softlabels (default: IMAGES)")
    add("--target-accuracy", type=float, default=0.0, metavar="PERCENT",
        help="print when top-1 accuracy reaches this (0: never)")


def _running(parser: Parser) -> None:
    add = parser.add_argument_group("checkpoints and speed").add_argument
    add("--save_checkpoint_path", default="./FKD_checkpoints_output", metavar="FOLDER", help="where checkpoints go; "
        "one that holds a training is refused unless --resume goes on with it (./FKD_checkpoints_output)")
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
    add("--loader-processes", type=int, default=0, metavar="N", help="let N processes beside each training process "
        "decode images, each with its part of these threads, where a small student on a fast GPU waits for batches (0)")
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
