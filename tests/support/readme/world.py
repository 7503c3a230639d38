"""The world in which the README's commands run: photographs, teachers, label sets, and an S3 server."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import slg_wds
from slg_wds import cli
from slg_wds.config import PrototypesConfig
from slg_wds.demo.photographs import HELD_OUT_VIEWS, VIEWS, write_photographs
from slg_wds.prototypes.command import make_bank
from slg_wds.training.flags import parse
from slg_wds.training.flags.args_file import write_args
from support.models.banks import Head
from support.servers.s3 import S3Server

CROPS = 8
TEACHERS = """
import torch
from torch import nn

def made(seed):
    torch.manual_seed(seed)
    pooled = nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    model = nn.Sequential(*pooled, nn.Linear(32, 1000))
    model.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3,
                            "interpolation": "bilinear", "crop_pct": 0.875}
    return model

def first():
    return made(1)

def second():
    return made(2)

factory = first
"""


@dataclass(frozen=True)
class World:
    """What the README's paths are here: photographs, label sets of small teachers, an S3 server."""

    folder: Path
    bucket: str
    environment: dict[str, str]

    def teacher(self, name: str) -> str:
        return f"private:{self.folder / 'mine.py'}:{name}"

    def here(self, command: str, fresh: Path) -> str:
        """A command of the README with this world's paths, teachers, sizes; what it writes goes below `fresh`."""
        first, second = self.teacher("first"), self.teacher("second")
        for pattern, instead in {
            # what is written is new, what is read was made before
            r"(--save-path|--save_checkpoint_path|--cache-dir) /\S*?/(\S+)": rf"\1 {fresh}/\2",
            r"(slg-wds train )(?!.*--save_checkpoint_path)": rf"\1--save_checkpoint_path {fresh}/checkpoints ",
            r"--save-path s3://bucket/": f"--save-path {self.bucket}/{fresh.name}/",
            r"-o report.html": f"-o {fresh}/report.html",
            r"/data/fkd-again": f"{fresh}/fkd-again",
            r"/data/|(?<= )(?=dino_deitsmall)": f"{self.folder}/",
            r"s3://bucket/": f"{self.bucket}/",
            r"\{0000\.\.1281\}": "0000",
            r"imagenet100.txt": f"{self.folder}/imagenet100.txt",
            # teachers with published weights are teachers of this file; students are timm's smallest
            r"-a mine.py:": f"-a {self.folder}/mine.py:",
            r"(slg.wds train .*?)-a resnet50": r"\1-a test_resnet",
            r"-a deit_small_patch16_224": "-a test_vit --size 32",
            r"(timm:)?(resnet50|tf_efficientnetv2_l\S*)(?= |,|$)": first,
            r"timm:resnet152\S*,pytorch:\S*": f"{first},{second}",
            r"timm:regnety_160": second,
            r"timm:vit_small_patch14_dinov2\S* --input-size 224": f"{first} --input-size 32",
            r"timm:vit_base_patch16_siglip_224\S*,timm:vit_base_patch16_clip\S*": f"{second},{second}",
            r"(slg.wds train )-a mobilenetv4_conv_small": r"\1-a test_resnet --size 64",
            r"-a mobilenetv4_conv_small": "-a test_resnet --input-size 64",
            # sizes
            r"-k 8192": "-k 8",
            r"--num_crops 500": f"--num_crops {CROPS}",
            r"--num_crops 700": f"--num_crops {CROPS + 4}",
            r"--epochs 300": "--epochs 4",
            r"-b 1024": "-b 12",
            r" --compile": "",  # minutes on a CPU
            # machines
            r"--devices 0,2": "--devices cpu:2",
            r"--engine ray --address auto": "--engine ray --actors 2",
            r"--nproc-per-node 8": "--standalone --nproc-per-node 2",
            r" --numa-binding node": "",  # looks for GPUs
        }.items():
            command = re.sub(pattern, instead, command)
        generates = re.match(r"slg-wds generate|.* -m slg_wds generate|nvidia-smi", command)
        if generates and "--num_crops" not in command:
            command += f" --num_crops {CROPS}"
        if command.startswith("slg-wds train") and "--epochs" not in command:
            command += " --epochs 4"
        # Without it, train writes into the folder of the checkout.
        if "slg-wds train" in command and "--save_checkpoint_path" not in command:
            command += f" --save_checkpoint_path {fresh}/student"
        return command


def make_world(folder: Path, s3_server: S3Server) -> World:
    """Make all that the commands read, below a folder and on a server."""
    images = write_photographs(folder / "imagenet/train", VIEWS[:2])
    write_photographs(folder / "imagenet/val", HELD_OUT_VIEWS[:1])
    (folder / "imagenet100.txt").write_text(
        "".join(f"{path.parent.name}/{path.name}\n" for path in images[:8])
    )
    (folder / "mine.py").write_text(TEACHERS)
    made = World(folder, f"{s3_server.url}/readme", s3_server.environment())
    labels = str(folder / "labels")
    (folder / "student").mkdir()
    words = [
        "-a",
        "test_resnet",
        "--softlabel_path",
        labels,
        "-b",
        "12",
        "--epochs",
        "4",
        str(folder / "imagenet"),
    ]
    write_args(folder / "student", parse(words).flags)
    for name in ("labels", "a", "b", "more"):
        config = slg_wds.GenerateConfig(
            data=str(folder / "imagenet"),
            save_path=str(folder / name),
            arch=made.teacher("second" if name == "b" else "first"),
            num_crops=CROPS + 4 if name == "more" else CROPS,
            extend=labels if name == "more" else None,
            reference_path=f"{folder}/a" if name == "b" else None,
            samples_per_shard=4,
        )
        slg_wds.generate(config)
    make_banks(made)
    embed(made)
    slg_wds.export_fkd(slg_wds.ExportConfig(labels=labels, fkd_dir=str(folder / "fkd")))
    upload(made, images)
    return made


def make_banks(world: World) -> None:
    """Write a set of embeddings, a bank of it, and a checkpoint with DINO's head."""
    images, dino = str(world.folder / "imagenet"), str(world.folder / "dino")
    teacher, bank = world.teacher("first"), str(world.folder / "bank.safetensors")
    slg_wds.generate(
        slg_wds.GenerateConfig(
            data=images, save_path=dino, arch=teacher, num_crops=CROPS, output="embedding", input_size=32
        )
    )
    make_bank(PrototypesConfig(source=dino, num_prototypes=8, save_path=bank))
    head = {f"head.{name}": tensor for name, tensor in Head(12, 9).state_dict().items()}
    torch.save({"teacher": head}, world.folder / "dino_deitsmall16_pretrain_full_checkpoint.pth")


def embed(world: World) -> None:
    """Make a second set of embeddings of the same crops, and a student of the first one."""
    folder = world.folder
    config = slg_wds.GenerateConfig(
        data=str(folder / "imagenet"), save_path=str(folder / "towers"), arch=world.teacher("second"),
        num_crops=CROPS, reference_path=str(folder / "dino"), output="embedding",
    )  # fmt: skip
    slg_wds.generate(config)
    flags = "-a test_resnet --size 64 --distill embedding -b 12 --num_crops 1 --epochs 1"
    path = [
        "--softlabel_path",
        str(folder / "dino"),
        "--save_checkpoint_path",
        str(folder / "student-dino"),
        str(folder / "imagenet"),
    ]
    assert cli.main(["train", *flags.split(), *path]) == 0


def options_of(world: World) -> dict[str, str]:
    names = {
        "endpoint": "ENDPOINT",
        "access_key_id": "ACCESS_KEY_ID",
        "secret_access_key": "SECRET_ACCESS_KEY",
    }
    return {name: world.environment[f"AWS_{variable}"] for name, variable in names.items()}


def upload(world: World, images: list[Path]) -> None:
    """Put the images into the bucket as a tar and as files, and the label set."""
    from slg_wds.store import open_store

    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as writer:
        for path in images:
            writer.add(path, f"{path.parent.name}_{path.stem}.jpg")
    files = {"shards/imagenet-0000.tar": tar.getvalue(), "imagenet/imagenet-0000.tar": tar.getvalue()}
    labels = world.folder / "labels"
    files |= {
        f"labels/{path.relative_to(labels)}": path.read_bytes()
        for path in labels.rglob("*")
        if path.is_file()
    }
    store = open_store(world.bucket, options_of(world))
    for name, data in files.items():
        store.create(name, data)


def run_here(words: list[str], environment: dict[str, str]) -> str:
    """Run `slg-wds` in this process; what it printed."""
    assert words[0] == "slg-wds"
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", words)
        assert cli.main(words[1:]) == 0, said.getvalue()
    return said.getvalue()


def run_there(words: list[str], environment: dict[str, str]) -> str:
    """Run a program of this environment."""
    scripts = sysconfig.get_path("scripts")
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=300, env={**os.environ, "PATH": path, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
