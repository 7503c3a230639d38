"""The README's code blocks run as they stand there, but for the substitutions written down here."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import warnings
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import slg_wds
from slg_wds import SoftCrossEntropy, cli
from slg_wds.config import PrototypesConfig
from slg_wds.demo.photographs import HELD_OUT_VIEWS, VIEWS, write_photographs
from slg_wds.prototypes.command import make_bank
from slg_wds.training.flags import parse
from slg_wds.training.flags.args_file import write_args
from support.models.banks import Head
from support.readme import README, block_with, blocks, commands
from support.sets.mixed_sets import mixed_of
from support.sets.replayed import BATCH, Made, given, make, student, walked

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


@pytest.fixture(scope="module")
def world(tmp_path_factory, s3_server) -> World:
    folder = tmp_path_factory.mktemp("readme")
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


TASK = {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_LOCALID": "0"}
SLICES = """GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)
  MIG 3g.40gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)"""
ELEMENT = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1"}
OF_MPIRUN = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}


def run_command(command: str, environment: dict[str, str]) -> str:
    """Run a command; of a launcher that needs a cluster, what it starts, as its only task."""
    words = shlex.split(command)
    if words[0] == "sbatch":
        return run_here(shlex.split(words[words.index("--wrap") + 1]), {**environment, **ELEMENT})
    if words[0] in ("srun", "mpirun"):
        variables = TASK if words[0] == "srun" else OF_MPIRUN
        return run_here(words[words.index("slg-wds") :], {**environment, **variables})
    if words[0] == "nvidia-smi":
        return run_there(["bash", "-c", f"nvidia-smi() {{ echo '{SLICES}'; }}; {command}"], environment)
    if words[0] == "torchrun":
        launcher = [sys.executable, "-m", "torch.distributed.run"]
        return run_there([*launcher, *words[1:]], {**environment, "OMP_NUM_THREADS": "1"})
    if words[0] == "eval":
        return run_there(["bash", "-c", f"{command}; complete -p slg-wds"], {})
    return run_here(words, environment)


# They start processes, or do what another one does.
SLOW = ("torchrun", "--devices", "--engine ray", "MIG-", "srun --ntasks 8", "--gpu-bind")
IN_ORDER = ("pip install", "slg-wds demo", "demo-output")  # of the quick start: below
MARKS = [
    pytest.param(command, marks=pytest.mark.slow) if any(one in command for one in SLOW) else command
    for command in commands()
    if not any(one in command for one in IN_ORDER)
]


@pytest.mark.parametrize("command", MARKS)
def test_commands(command, world, tmp_path):
    changed = world.here(command, tmp_path)
    said = run_command(changed, world.environment)
    for written in re.findall(r"(?:--save-path|--save_checkpoint_path|-o) (\S+?)\"?(?= |$)", changed):
        if written.startswith("s3://"):
            assert len(slg_wds.open_labels(written, store_options=options_of(world))) > 0
        elif "--dry-run" not in command:
            assert Path(written).exists(), said
    assert said or "export" in command


def test_every_extra_that_is_installed_is_there():
    lines = [line for line in commands() if line.startswith("pip")]
    extras = set(metadata("slg-wds").get_all("Provides-Extra"))
    assert lines
    for line in lines:
        name, _, wanted = shlex.split(line.removeprefix("pip install "))[0].partition("[")
        assert name in ("slg-wds", ".") and line.count(" ") == 2
        assert set(filter(None, wanted.rstrip("]").split(","))) <= extras


QUICK_START = [line for line in commands() if any(one in line for one in IN_ORDER)][
    :3
]  # then come other installs


def form(text: str) -> list[str]:
    """Lines without rulers, and without what differs by machine and length of the run: fractions, epochs."""
    lines = [
        re.sub(r"\d+\.\d+%?|\d+%|(?<=^epoch )\d+|(?<=^trained )\d+", "#", " ".join(line.split()))
        for line in text.splitlines()
    ]
    return [line for line in lines if line.strip("─ ")]


def shown_in(output: str, text: str) -> bool:
    """Whether the lines of a block stand one after the other in an output."""
    said, wanted = form(output), form(text)
    return any(said[at : at + len(wanted)] == wanted for at in range(len(said)))


def quick_start(folder: Path, *, quick: bool) -> list[str]:
    """Run the three commands in an empty folder, with few crops and one epoch if they shall be quick."""
    install, demo, train = QUICK_START
    assert install == "pip install '.[demo]'", "what it installs is in this environment"
    if quick:
        demo += " --num_crops 6"
        train = re.sub(r"--epochs \d+", "--epochs 12", train)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return [run_here(shlex.split(command), {"COLUMNS": "120"}) for command in (demo, train)]


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_quick_start_ends_in_a_trained_student(tmp_path, quick):
    demo, train = quick_start(tmp_path, quick=quick)
    assert shown_in(demo, block_with("text", "what the teacher saw"))
    (command,) = [line for line in QUICK_START if "train" in line]
    assert command in " ".join(demo.replace("\\\n", "").split()), "the command that the demo prints"
    assert (tmp_path / "demo-output/student/checkpoint.pth.tar").exists()
    assert shown_in(train, block_with("text", "top-1"))


def executed(code: str, labels: str, images: str = "", **names) -> dict:
    """The names that a block of Python has at its end."""
    for old, new in {
        "/data/labels": labels,
        "/data/imagenet/train": images,
        "=1024": f"={BATCH}" if "crops_per_image" in code else f"={BATCH}, crops_per_image=2",
        "cuda": "cpu",
        "nccl": "gloo",
        "range(75)": "range(2)",
        '"resnet50"': '"test_resnet"',
        "num_workers=8": "num_workers=0",
        "cut_crops(224": "cut_crops(32",
        "batch_size=64": "batch_size=6",
    }.items():
        code = code.replace(old, new)
    found = {"SoftLabelLoader": slg_wds.SoftLabelLoader, "SoftCrossEntropy": SoftCrossEntropy, **names}
    exec(code, found)
    return found


@pytest.fixture(scope="module")
def replayed(photographs, tmp_path_factory) -> Made:
    return Made(make(photographs, tmp_path_factory.mktemp("readme") / "labels"), str(photographs))


def executed_on(made: Made, code: str, **names) -> dict:
    return executed(code, made.labels, made.images, **names)


def test_generating_and_reading(world, tmp_path):
    code = block_with("python", "GenerateConfig(")
    changed = code.replace("/data/imagenet", str(world.folder / "imagenet"))
    changed = changed.replace('"resnet50"', f"{world.teacher('first')!r}, num_crops={CROPS}")
    found = executed(changed, str(tmp_path / "set"))
    assert found["record"].crops.shape == (CROPS, 4)
    assert found["record"].distribution().shape == (CROPS, 1000)


@pytest.mark.filterwarnings("ignore:Grad strides do not match")
def test_pytorch(world, monkeypatch):
    """One process of gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    try:
        found = executed(
            block_with("python", "DistributedDataParallel"),
            str(world.folder / "a"),
            str(world.folder / "imagenet/train"),
        )
    finally:
        torch.distributed.destroy_process_group()
    assert found["epoch"] == 1 and found["batch"].images.shape == (BATCH, 3, 32, 32)
    assert all(parameter.grad is not None for parameter in found["student"].parameters())


def test_temperature(replayed):
    found = executed_on(replayed, block_with("python", "temperature=lambda"))
    assert [found["loader"].temperature.of(epoch) for epoch in (0, 10, 40)] == [4.0, 3.0, 1.0]
    batch = next(iter(found["loader"]))
    assert found["loss"](torch.zeros(BATCH, batch.labels.num_classes), batch.labels) > 0


def test_mixed_views(replayed, tmp_path):
    mixed = Made(mixed_of(replayed.labels, str(tmp_path / "mixed")), replayed.images)
    code = block_with("python", "batch.target2").replace("/data/mixed", mixed.labels)
    found = executed_on(mixed, code, student=student())
    assert 0 < found["loss"] < 20 and (found["batch"].lam < 1).any()


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_lightning(replayed, tmp_path):
    """The whole training, and what is left of it after a checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        import lightning
        from lightning.pytorch.callbacks import ModelCheckpoint
    base = executed_on(replayed, block_with("python", "lightning."), lightning=lightning)["Student"]

    class Whole(base):
        def __init__(self):
            super().__init__()
            self.net, self.loss, self.seen = student(), SoftCrossEntropy(), []

        def training_step(self, batch, batch_idx):
            self.seen.append(given(batch))
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    seen = []
    for checkpoint in (None, tmp_path / "step=4.ckpt"):
        model, saving = Whole(), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
        lightning.Trainer(accelerator="cpu", max_epochs=2, callbacks=[saving], **silent).fit(
            model, ckpt_path=checkpoint
        )
        seen.append(model.seen)
    assert seen == [walked(replayed, 2), walked(replayed, 2)[4:]]


def test_accelerate(replayed):
    from accelerate import Accelerator

    found = executed_on(replayed, block_with("python", "accelerator."), accelerator=Accelerator(cpu=True))
    assert [given(batch) for batch in found["loader"]] == walked(replayed, 1) and found["loader"].epoch == 1


def test_timm(replayed):
    """With what timm's script has there: its arguments, the device, the student's configuration."""
    import timm
    from timm.data import resolve_data_config

    model = timm.create_model("test_resnet", num_classes=20)
    here = {
        "args": SimpleNamespace(batch_size=BATCH, world_size=1, seed=42),
        "device": torch.device("cpu"),
        "data_config": resolve_data_config({"img_size": 32}, model=model),
    }
    found = executed_on(replayed, block_with("python", ".pairs()"), **here)
    for images, target in found["loader_train"]:
        assert images.shape == (BATCH, 3, 32, 32)
        found["train_loss_fn"](model(images), target).backward()
    assert len(found["loader_train"]) == 6 and all(one.grad is not None for one in model.parameters())


@pytest.mark.slow
def test_timms_own_script(world, tmp_path):
    """Neither timm's wheel nor its source distribution has it. TIMM_TRAIN says where a clone does."""
    path = os.environ.get("TIMM_TRAIN")
    if not path:
        pytest.skip("no package has timm's train.py; TIMM_TRAIN names that of a clone")
    before, line, after = (
        Path(path).read_text().partition("    validate_loss_fn = nn.CrossEntropyLoss().to(device=device)\n")
    )
    block = block_with("python", ".pairs()").replace("/data/labels", f"{world.folder}/a")
    block = block.replace("/data/imagenet", f"{world.folder}/imagenet")
    assert line
    (tmp_path / "train.py").write_text(before + line + textwrap.indent(block, "    ") + after)
    words = (
        f"--data-dir {world.folder}/imagenet --model test_resnet --img-size 32 -b 12 --epochs 2 --workers 0"
    )
    more = f"--device cpu --lr 0.1 --warmup-epochs 0 --grad-accum-steps 2 --clip-grad 1 --output {tmp_path}/output"
    said = run_there([sys.executable, str(tmp_path / "train.py"), *words.split(), *more.split()], {})
    results = json.loads(said.partition("--result")[2])
    first, second = (one["train"]["loss"] for one in sorted(results, key=lambda one: one["epoch"]))
    assert second < first


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_torchdata(replayed, tmp_path):
    """The block with our loader, and with torchdata's over the same batches."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    code = block_with("python", "resumed.load_state_dict").replace("== 1000", "== 2")
    code = code.replace("/data/loader.pt", f"{tmp_path}/loader.pt")
    whole = walked(replayed, 2)
    first, second = whole[:3], whole[3:]
    ours = executed_on(replayed, code, torch=torch)["resumed"]
    theirs = executed_on(
        replayed,
        code,
        torch=torch,
        SoftLabelLoader=lambda *_, **__: StatefulDataLoader(first, batch_size=None),
    )["resumed"]
    assert [given(batch) for batch in ours] == [tuple(map(tuple, one)) for one in theirs] == first[2:]
    assert [given(batch) for batch in ours] == second and len(list(theirs)) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file")
def test_webdataset(photographs, tmp_path):
    """In each epoch the crops and labels that the loader gives in it."""
    labels = make(photographs, tmp_path / "labels", embed_images="original")
    loop, seen = "        batch.images, batch.labels", []
    code = block_with("python", "decode_record_stage(")
    assert code.count(loop) == 1
    executed(code.replace(loop, "        seen.append((epoch, batch))"), labels, seen=seen)
    gc.collect()  # WebDataset leaves the last shard open
    loader = slg_wds.SoftLabelLoader(labels, global_batch_size=BATCH, crops_per_image=4)
    found, wanted = (
        labels_by_place(seen),
        labels_by_place((loader.epoch, batch) for _ in "12" for batch in loader),
    )
    assert found.keys() == wanted.keys() and len(found) == 2 * 36 * 4
    for place, row in wanted.items():
        torch.testing.assert_close(found[place], row, atol=1e-6, rtol=0)
    first, second = ({place[1:] for place in found if place[0] == epoch} for epoch in (0, 1))
    assert not first & second, "8 of 12 crops of each image"


def labels_by_place(batches) -> dict[tuple[int, str, int], torch.Tensor]:
    """The distributions of (epoch, batch) pairs by epoch, key and crop."""
    return {
        (epoch, key, crop): row
        for epoch, batch in batches
        for key, crop, row in zip(batch.key, batch.crop.tolist(), batch.labels.dense(), strict=True)
    }


def test_every_block_is_run():
    """Bash blocks line by line; of the others each by the test that names a mark of it."""
    source = Path(__file__).read_text()
    marks = re.findall(r'block_with\("(\w+)", "(.+?)"\)', source)
    others = [block for block in blocks() if block.language != "bash"]
    assert {block.language for block in others} == {"python", "text"}
    for block in others:
        assert any(block.language == language and mark in block.text for language, mark in marks), block
    started = {line.split()[0] for line in commands()}
    assert started == {"pip", "slg-wds", "eval", "torchrun", "srun", "mpirun", "sbatch", "nvidia-smi"}
    assert not re.search(
        r"^( {4}|\t)\S", re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE), re.M
    )
