"""Every flag of `slg-wds train`, in the groups of --help, which shows the defaults itself.

This is argparse and not a config dataclass: FKD's command lines must work as they are, with their abbreviations and
with both spellings, -b and --batch-size.
"""

from __future__ import annotations

import argparse

from slg_wds.config.training import BATCH_SIZE, NUM_CROPS, SOFTLABEL_PATH
from slg_wds.training.flags.parsers import HelpFormatter, KeyValues, Parser, Several

DESCRIPTION = """\
Train a student on a label set of `slg-wds generate` (or `import`).

    slg-wds train -a resnet50 --softlabel_path LABELS [OPTIONS] IMAGES
    torchrun --nproc-per-node 8 -m slg_wds train ...
    srun --ntasks 8 --gpus-per-task 1 --cpus-per-task 16 --kill-on-bad-exit \\
        slg-wds train ...

Without GPUs the processes of torchrun meet through gloo. A task of Slurm has one core unless --cpus-per-task gives it \
more, and with --kill-on-bad-exit all tasks end where one fails. On several machines set MASTER_ADDR.

FKD's flags have FKD's meaning. -b counts crops over all processes. --epochs counts passes over single crops: a walk \
over the images with 4 crops of each is 4 epochs. The last --num_crops epochs are walks with one crop of each image, \
with a validation after each.

A checkpoint is written whole or not at all. A resumed run goes on with the very next batch. On one machine, with the \
same number of threads, it ends with the same weights, bit for bit, as a run that was never stopped. On a GPU that \
takes --seed, since a GPU's fastest algorithms give other bits in each run.
"""


def make_parser(prog: str) -> Parser:
    """Return the parser of all flags, in groups: what a newcomer needs first, the launcher last."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [-h] [OPTIONS] [IMAGES]",  # argparse would list all flags, on thirty lines
        description=DESCRIPTION,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("data", nargs="?", metavar="IMAGES", help="Folder with the folders train and val. A set with "
        "embedded images needs it for validation only.")  # fmt: skip
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
    add("-a", "--arch", default="resnet50", help="A model of timm, or a function of yours that returns one: "
        "`package.module:FUNCTION` or `FILE.py:FUNCTION`.")
    add("--pretrained", action="store_true", help="Start from timm's published weights.")
    add("--drop-path", type=float, metavar="P", help="Stochastic depth: the share of residual branches that is dropped "
        "in training. (default: the model's own)")
    add("--model-kwargs", nargs="*", action=KeyValues, default={}, metavar="KEY=VALUE", help="Other arguments of "
        "timm's model, such as drop_rate=0.1.")
    add("--num_classes", type=int, metavar="N", help="Classes of the student. (default: those of the label set)")
    add("--size", type=int, metavar="PIXELS", help="Side of the student's square input. (default: the model's own)")
    add("--interpolation", metavar="MODE", help="How crops are resized to the input: bicubic, bilinear or nearest. "
        "(default: as for the teacher)")


def _labels(parser: Parser) -> None:
    add = parser.add_argument_group("labels and crops").add_argument
    add("--softlabel_path", action=Several, default=[SOFTLABEL_PATH], metavar="SET", help="The label set: a folder or "
        "URL. Given several times, the student learns the mean of several sets.")
    add("--label-weights", type=float, nargs="+", metavar="WEIGHT", help="Weight of each label set in that mean. "
        "(default: equal)")
    add("--num_crops", type=int, default=NUM_CROPS, metavar="N", help="Crops of an image in a batch.")
    add("--soft_label_type", metavar="TYPE", help="How distributions are recovered, for example marginal_smoothing_k5. "
        "`ori`: from all stored probabilities. (default: as the label set's type says)")
    add("--label-temp", type=float, metavar="T", help="Temperature of the teacher, at which labels are read. (default: "
        "that at which they were made)")
    add("--label-temp-end", type=float, metavar="T", help="Temperature of the last epoch: from --label-temp in the "
        "first epoch it goes there evenly. (default: --label-temp throughout)")
    add("--crop-filter", nargs=3, metavar=("MEASURE", "LOW", "HIGH"), help="Train only on crops whose MEASURE, which "
        "is `confidence` or `tail`, lies between LOW and HIGH.")
    add("--cache-dir", metavar="FOLDER", help="Where label shards of a remote set are kept.")
    add("--store-option", action=Several, default=[], metavar="KEY=VALUE", help="Setting of the object store, such as "
        "endpoint=http://host:9000; may be given several times.")


def _embeddings(parser: Parser) -> None:
    text = "A student of embeddings has no head: a linear projector maps its features to each teacher's width. \
Checkpoints keep the projectors apart, so that timm.create_model(ARCH, num_classes=0) loads the student."
    add = parser.add_argument_group("embeddings", text).add_argument
    add("--distill", choices=["labels", "embedding"], default="labels", help="What the student learns. embedding: the "
        "embeddings of sets of `generate --output embedding`, of several sets together.")
    add("--embedding-loss", choices=["cosine", "smooth_l1", "both", "relation"], default="cosine", help="How features "
        "are compared with embeddings. both: 0.9 of the cosine distance and 0.1 of smooth L1, as in AM-RADIO; "
        "relation: which crops of a process's batch are alike, without a projector.")
    add("--embedding-norm", choices=["none", "unit", "layer"], default="none", help="What is done to features and "
        "embeddings before they are compared. unit: they are divided by their length; layer: they are brought to mean "
        "0 and deviation 1.")
    add("--knn-images", type=int, default=10000, metavar="N", help="In validation the images of IMAGES/val find their "
        "nearest neighbours among N images of IMAGES/train, drawn at random.")


def _optimization(parser: Parser) -> None:
    add = parser.add_argument_group("optimization").add_argument
    add("--epochs", type=int, default=300, metavar="N", help="Passes over single crops.")
    add("--start-epoch", type=int, default=0, metavar="N", help="Epoch to start at, without a checkpoint.")
    add("-b", "--batch-size", type=int, default=BATCH_SIZE, metavar="N", help="Crops in a batch, over all processes, "
        "rounded up to whole images.")
    add("--grad-accum-steps", type=int, default=1, metavar="N", help="Each process takes its part of a batch in N "
        "pieces, one after the other, and adds up their gradients. That takes less memory; -b means the same.")
    add("--opt", choices=["sgd", "adamw"], default="sgd", help="The optimizer.")
    add("--opt-kwargs", nargs="*", action=KeyValues, default={}, metavar="KEY=VALUE", help="Other arguments of torch's "
        "optimizer, such as nesterov=True or betas=(0.9,0.95).")
    add("--momentum", type=float, default=0.9, metavar="M", help="Momentum of sgd.")
    add("--wd", "--weight-decay", type=float, default=1e-4, dest="weight_decay", metavar="W", help="Weight decay.")
    add("--filter-bias-and-bn", action="store_true", help="Let biases, normalisation layers and what the model names "
        "(positions, class token) not decay, as timm does. FKD's CNNs let all weights decay.")
    add("--clip-grad", type=float, metavar="NORM", help="Clip gradients to NORM, as --clip-mode says. (default: they "
        "are not clipped)")
    add("--clip-mode", choices=["norm", "value", "agc"], default="norm", help="What --clip-grad bounds: the norm of "
        "all gradients, each value, or the norm relative to that of the weights.")
    add("--fused", action=argparse.BooleanOptionalAction, help="Use torch's fused optimizer. (default: on GPUs)")
    add("--temp", type=float, default=1.0, metavar="T", help="Temperature of the student: its logits are divided by T.")
    add("--ema", type=float, default=0.0, metavar="DECAY", help="Also keep an exponential moving average of the "
        "weights, and validate it. (default: 0, no average)")
    add("--amp", choices=["off", "bf16", "fp16"], default="off", help="Mixed precision.")
    add("--seed", type=int, metavar="N", help="Seed of initial weights, order and mixing. If it is given, torch uses "
        "its deterministic algorithms. (default: 0)")


def _learning_rate(parser: Parser) -> None:
    text = "FKD's schedules change the rate between walks. --sched takes timm's, which change it at every step."
    add = parser.add_argument_group("learning rate", text).add_argument
    add("--lr", "--learning-rate", type=float, default=0.1, metavar="RATE", help="Initial learning rate.")
    add("--cos", action="store_true", help="Use FKD's cosine schedule in place of --schedule.")
    add("--schedule", type=int, nargs="*", default=[120, 240], metavar="EPOCH", help="Epochs at which the rate is "
        "divided by 10.")
    add("--warmup", type=int, default=0, metavar="STEPS", help="Steps over which the rate rises to --lr.")
    add("--sched", metavar="NAME", help="A schedule of timm: cosine, tanh, step, multistep (at the epochs of "
        "--schedule), poly, ... (default: FKD's)")
    add("--warmup-epochs", type=float, default=0.0, metavar="N", help="With --sched: epochs at the start over which "
        "the rate rises to --lr.")
    add("--warmup-lr", type=float, default=1e-5, metavar="RATE", help="With --sched: the rate at the start of these.")
    add("--min-lr", type=float, default=0.0, metavar="RATE", help="With --sched: the rate at the end.")
    add("--sched-kwargs", nargs="*", action=KeyValues, default={}, metavar="KEY=VALUE", help="Other arguments of "
        "timm's create_scheduler_v2, in epochs, such as decay_epochs=30, or num_epochs=100 cycle_limit=3 for three "
        "cycles of 100 of --epochs 300.")


def _mixing(parser: Parser) -> None:
    text = "These mix the crops of a batch. Label sets whose views were mixed when they were labelled (generate \
--mixup, --cutmix) need no flag."
    add = parser.add_argument_group("mixup and CutMix", text).add_argument
    add("--mixup_cutmix", action="store_true", help="Mix the crops of a batch, and their labels with them. It is "
        "refused for label sets with mixed views.")
    add("--mixup", type=float, default=0.8, metavar="ALPHA", help="Parameter of mixup's Beta distribution.")
    add("--cutmix", type=float, default=1.0, metavar="ALPHA", help="Parameter of CutMix's Beta distribution.")
    add("--mixup_cutmix_prob", type=float, default=1.0, metavar="P", help="Share of the batches that are mixed.")
    add("--mixup_switch_prob", type=float, default=0.5, metavar="P", help="Share of the mixed batches that are mixed "
        "by mixup, as in FKD; CutMix mixes the others.")


def _validation(parser: Parser) -> None:
    add = parser.add_argument_group("validation").add_argument
    add("-e", "--evaluate", action="store_true", help="Only validate the weights of --resume or --pretrained.")
    add("--class-map", metavar="FILE", help="File with the student's class number for each folder of val, in lines "
        "`FOLDER NUMBER`. Needed if the folders of val are not named as those that the student learns from.")
    add("--val-softlabels", metavar="SET", help="Label set of held-out images. Validation then has the KL divergence "
        "from the teacher and the agreement with it; of embeddings, the cosine to the teacher's.")
    add("--val-images", metavar="IMAGES", help="The images of --val-softlabels. (default: IMAGES)")
    add("--target-accuracy", type=float, default=0.0, metavar="PERCENT", help="Print when top-1 accuracy reaches "
        "PERCENT. (default: 0, never)")


def _running(parser: Parser) -> None:
    add = parser.add_argument_group("checkpoints and speed").add_argument
    add("--save_checkpoint_path", default="./FKD_checkpoints_output", metavar="FOLDER", help="Where checkpoints go. A "
        "folder that holds a training is refused, unless --resume goes on with it.")
    add("--resume", default="", metavar="FILE", help="Checkpoint to go on from; `auto` is that of "
        "--save_checkpoint_path, if there is one.")
    add("--checkpoint-every", type=int, default=0, metavar="STEPS", help="Write a checkpoint within a walk too, every "
        "STEPS steps. (default: 0, only at its end)")
    add("-p", "--print-freq", type=int, default=10, metavar="STEPS", help="Steps between printed lines.")
    add("--log", action=Several, choices=["csv", "tensorboard", "wandb"], default=["csv"], help="Where each walk's "
        "figures go, beside summary.csv in the folder of checkpoints; may be given several times.")
    add("-c", "--config", metavar="FILE", help="Take flags from a file such as args.yaml, which each run leaves beside "
        "its checkpoints. Flags of the command line come first.")
    add("-j", "--workers", type=int, metavar="N", help="Threads that decode images, over all processes of a machine. "
        "(default: its cores)")
    add("--loader-processes", type=int, default=0, metavar="N", help="Let N processes beside each training process "
        "decode images, each with its part of these threads. It helps where a small student on a fast GPU waits for "
        "batches.")
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True, help="Keep weights and activations in "
        "the memory layout channels_last. (default: --channels-last)")
    add("--compile", action="store_true", help="Compile the student with torch.compile.")


def _launching(parser: Parser) -> None:
    text = "Where torchrun, mpirun or srun starts the processes, only --sync-bn and --dist-backend count."
    add = parser.add_argument_group("processes and GPUs", text).add_argument
    add("--sync-bn", action="store_true", help="Normalise over the batches of all GPUs.")
    add("--gpu", type=int, metavar="N", help="Use this GPU only.")
    add("--multiprocessing-distributed", action="store_true", help="Start torchrun with one process per GPU.")
    add("--world-size", type=int, default=1, metavar="N", help="Number of machines that run this command.")
    add("--rank", type=int, default=0, metavar="N", help="Which of them this machine is, from 0.")
    add("--dist-url", default="tcp://127.0.0.1:29500", metavar="URL", help="Where machine 0 is, as tcp://HOST:PORT.")
    add("--dist-backend", metavar="NAME", help="Backend of torch.distributed. (default: nccl with GPUs, else gloo)")
# fmt: on
