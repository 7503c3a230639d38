"""train_student.py as a process: kill and resume, several ranks, FKD's command lines, wrong options."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slg_wds.training.command import main
from support.models.tiny_students import plain, weights
from support.paths import TOOLS
from support.training import PLAIN, RESTLESS, common, rows_of, same

ANNEALED = ("--label-temp", "4", "--label-temp-end", "1")
EVERYTHING = ("-a", RESTLESS, "--mixup_cutmix", "--ema", "0.9", *ANNEALED)
ADAMW = ("--opt", "adamw", "--filter-bias-and-bn", "--clip-grad", "1", "--grad-accum-steps", "2")
COSINE = ("--sched", "cosine", "--warmup-epochs", "3", "--min-lr", "1e-4")


@pytest.fixture(scope="module")
def command(photographs, labels):
    """36 images, 4 crops each, 16 crops a batch: 9 steps a walk of 4 epochs."""

    def words(target: Path, *more: str) -> list[str]:
        folder = ["--save_checkpoint_path", str(target), str(photographs)]
        return [
            sys.executable,
            str(TOOLS / "train_student.py"),
            *common(labels),
            "--seed",
            "3",
            *more,
            *folder,
        ]

    return words


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def finish(words: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=one_thread(), check=False)
    assert done.returncode == code, done.stderr
    return done


def kill_after(words: list[str], steps: int) -> bool:
    """Run until so many lines of steps were printed, then SIGKILL; whether the run was still going."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=one_thread()
    ) as process:
        seen: list[str] = []
        for line in process.stdout:
            seen.append(line)
            if sum(" loss " in one for one in seen) == steps:
                os.kill(process.pid, signal.SIGKILL)
                process.stdout.read()
                return process.wait() == -signal.SIGKILL
        assert process.wait() == 0, "".join(seen)
    return False


def trained_steps(text: str) -> int:
    return int(re.search(r"trained ([\d,]+) steps", text)[1].replace(",", ""))


def kill_and_resume(
    command, folder: Path, settings: tuple[str, ...], steps: int, chance: random.Random
) -> int:
    """Kill after a random number of steps again and again; returns the number of kills."""
    kills = 0
    resuming = command(folder, *settings, "--resume", "auto")
    while kill_after(resuming, chance.randrange(1, steps)):
        kills += 1
    return kills


@pytest.mark.slow
def test_a_killed_run_ends_with_the_very_weights(command, tmp_path):
    settings = (*EVERYTHING, *ADAMW, *COSINE)
    settings = (*settings, "--epochs", "22", "--checkpoint-every", "4")  # 5 walks of 9 steps, 2 of 2
    whole = finish(command(tmp_path / "whole", *settings))
    assert trained_steps(whole.stdout) == 49
    for steps in (7, 20):  # an offset inside a walk, and one that later walks hide
        assert kill_after(command(tmp_path / "killed", *settings, "--resume", "auto"), steps)
    last = finish(command(tmp_path / "killed", *settings, "--resume", "auto"))
    assert 4 <= int(re.search(r"resumed at epoch \d+, step (\d+)", last.stdout)[1]) < 49
    assert trained_steps(last.stdout) == 49
    same(tmp_path / "whole", tmp_path / "killed")
    one, two = (
        [
            {name: row[name] for name in ("epoch", "step", "train_loss", "lr")}
            for row in rows_of(tmp_path / name)
        ]
        for name in ("whole", "killed")
    )
    assert one == two and [row["step"] for row in one] == ["9", "18", "27", "36", "45", "47", "49"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        (*EVERYTHING, "--cos"),
        ("-a", PLAIN),
        ("-a", RESTLESS, "--opt", "adamw", "--amp", "bf16", "--warmup", "30"),
        ("-a", RESTLESS, "--num_crops", "1", "--mixup_cutmix", "--mixup_switch_prob", "0"),
        ("-a", "test_vit", "--size", "32", "--drop-path", "0.2", *ADAMW, *COSINE),
        (
            "-a",
            RESTLESS,
            "--sched",
            "step",
            "--sched-kwargs",
            "decay_epochs=7",
            "--clip-mode",
            "agc",
            "--clip-grad",
            "1",
        ),
    ],
)
def test_any_number_of_kills_changes_no_bit(command, tmp_path, settings):
    settings = (*settings, "--epochs", "60", "--checkpoint-every", "5")
    whole = finish(command(tmp_path / "whole", *settings))
    kills = kill_and_resume(command, tmp_path / "killed", settings, 40, random.Random(str(settings)))
    assert kills >= 3 and trained_steps(whole.stdout) > 100
    same(tmp_path / "whole", tmp_path / "killed")


def torchrun(words: list[str], ranks: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [words[0], *launcher, *words[1:]]


SHORT = ("-a", PLAIN, "--epochs", "5", "--ema", "0.5")


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory) -> Path:
    """What one process leaves."""
    folder = tmp_path_factory.mktemp("alone")
    finish(command(folder, *SHORT))
    return folder


def alike(alone: Path, together: Path) -> None:
    """Weights and mean losses are the same but for the order of sums."""
    one, two = (weights(str(folder / "checkpoint.pth.tar")) for folder in (alone, together))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(one["/state_dict/4.weight"], plain().state_dict()["4.weight"], atol=1e-3)
    losses, theirs = ([float(row["train_loss"]) for row in rows_of(folder)] for folder in (alone, together))
    assert losses == pytest.approx(theirs, rel=1e-4) and len(losses) == 2


@pytest.mark.slow
def test_two_ranks_train_as_one(command, alone, tmp_path):
    """The same global batches, so the same weights but for the order of sums; also where a process takes two pieces."""
    done = finish(torchrun(command(tmp_path, *SHORT, "--grad-accum-steps", "2"), 2))
    assert trained_steps(done.stdout) == 11 and done.stdout.count("trained") == 1
    alike(alone, tmp_path)


def task_of_slurm(rank: int, tasks: int = 2, **more: str) -> dict[str, str]:
    """What srun gives a task of one machine."""
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_NTASKS": str(tasks)}
    place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_STEP_TASKS_PER_NODE": str(tasks)}
    return {**job, **place, **more}


@pytest.mark.slow
def test_tasks_of_srun_train_one_student(command, alone, tmp_path):
    words = command(tmp_path, *SHORT)
    running = [
        subprocess.Popen(
            words,
            env={**one_thread(), **task_of_slurm(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert trained_steps(said[0]) == 11 and said[1] == "", "the first alone speaks and saves"
    alike(alone, tmp_path)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"},
            "MASTER_ADDR does not say where they meet; before srun: export",
        ),
        ({"SLURM_STEP_ID": "4294967291"}, "Slurm says that this is task 0 of 2, but srun did not start it"),
    ],
)
def test_tasks_that_cannot_meet_are_refused(command, tmp_path, monkeypatch, capsys, variables, message):
    for name, value in task_of_slurm(0, **variables).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setattr(sys, "argv", command(tmp_path, "-a", PLAIN)[1:])
    assert main(prog="train_student") == 2
    _, errors = capsys.readouterr()
    assert message in errors and errors.count("\n") == 1
    assert not (tmp_path / "checkpoint.pth.tar").exists()


@pytest.mark.slow
def test_flags_of_fkds_readme(labels, photographs, tmp_path, monkeypatch, capsys):
    """Its two training command lines and its evaluation, with a small student and batch."""
    script = [sys.executable, str(TOOLS / "train_student.py")]
    common = ["-a", PLAIN, "--lr", "0.1", "--num_crops", "4", "-b", "16", "--temp", "1.0", "--cos"]
    launcher = [
        "--dist-url",
        "tcp://127.0.0.1:10001",
        "--dist-backend",
        "nccl",
        "--multiprocessing-distributed",
    ]
    path = ["--save_checkpoint_path", str(tmp_path / "out"), "--softlabel_path", labels, str(photographs)]
    data = tmp_path / "data"
    shutil.copytree(photographs / "train", data / "val")
    classes = sorted(folder.name for folder in (data / "val").iterdir())
    numbers = tmp_path / "classes"
    numbers.write_text("".join(f"{name} {number}\n" for number, name in enumerate(classes)))
    more = ["--world-size", "1", "--rank", "0", "-j", "32", "--epochs", "4"]
    done = finish([*script, *launcher, *more, *common, *path])
    assert trained_steps(done.stdout) == 4 * 2  # the last four epochs are walks of one crop: 36 // 16 steps
    checkpoint = str(tmp_path / "out" / "checkpoint.pth.tar")
    evaluating = ["-a", PLAIN, "-e", "--resume", checkpoint, "--num_classes", "20"]
    monkeypatch.setattr(sys, "argv", [script[1], *evaluating, "--class-map", str(numbers), str(data)])
    assert main(prog="train_student") == 0
    top1, top5 = accuracy(checkpoint, data / "val", classes)
    assert f"top-1 {top1:.2%}, top-5 {top5:.2%} on 36 images" in capsys.readouterr().out


def accuracy(checkpoint: str, folder: Path, classes: list[str]) -> tuple[float, float]:
    """By Pillow and torchvision's evaluation transform on tensors, image by image."""
    from PIL import Image
    from torchvision.transforms import v2

    student = plain().eval()
    student.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    transform = v2.Compose(
        [
            v2.PILToTensor(), v2.Resize(36, antialias=True), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )  # fmt: skip
    hits = []
    for number, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            with Image.open(path) as image, torch.no_grad():
                order = student(transform(image.convert("RGB"))[None])[0].argsort(descending=True).tolist()
            hits.append(order.index(number))
    return sum(h < 1 for h in hits) / len(hits), sum(h < 5 for h in hits) / len(hits)


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (["--frobnicate"], 2, "there is no flag --frobnicate"),
        (["--epohcs", "3"], 2, "there is no flag --epohcs; did you mean --epochs?"),
        (["more"], 2, "is one argument too many"),
        (["-b", "many"], 2, "-b/--batch-size: 'many' is not a whole number"),
        (["-a", "resnet5"], 1, "timm has no model 'resnet5'; near names are resnet50"),
        (
            ["-b", "999"],
            1,
            "36 images cannot fill a batch of 1,000 crops: the last 4 epochs (--num_crops) take one",
        ),
        (["-b", "40"], 1, "; -b 36 fits"),  # 10 images of 4 crops would: the walks of one crop need 40 images
        (["--num_crops", "7", "-b", "42"], 1, "; -b 35 fits"),
        (["--num_crops", "40", "-b", "40"], 1, "; --num_crops 36 -b 36 fits"),
        (["--num_classes", "7"], 2, "--num_classes 7, but the labels are over 20"),
        (["--resume", "nowhere"], 1, "the checkpoint cannot be read"),
        (["--resume", __file__], 1, "it is damaged or more than weights; nothing of it was run (url"),
        (["--warmup", "-5"], 2, "--warmup -5 is below 0"),  # the rate would be below 0 too
        (["--checkpoint-every", "-1"], 2, "--checkpoint-every -1 is below 0"),
        (["--size", "0"], 2, "--size 0 is not inside 1..16384"),
        (["--ema", "1"], 2, "--ema 1 would keep the first weights for ever"),
        (
            ["--soft_label_type", "marginal_smoothing_k10"],
            1,
            "needs 10 classes per crop, and the set stores 5",
        ),
        (["--amp", "fp16"], 2, "--amp fp16 needs a GPU"),
        (["--save_checkpoint_path", "/proc/no"], 1, "checkpoints cannot be written here"),
        (
            ["--save_checkpoint_path", f"{__file__}/no"],
            1,
            f"cannot be written here: {__file__} is a file, not",
        ),
        (["-e"], 2, "-e needs weights"),
        (["--label-temp-end", "2"], 2, "--label-temp-end needs --label-temp"),
        (["--label-temp", "0"], 2, "--label-temp must be above 0, not 0.0"),
        (["--drop-path", "0.1"], 2, "--drop-path and --model-kwargs are for models of timm"),
        (["--model-kwargs", "speed=3", "-a", "test_resnet"], 2, "unexpected keyword argument 'speed'"),
        (["--model-kwargs", "num_classes=3", "-a", "test_vit"], 2, "multiple values for keyword argument"),
        (["--opt-kwargs", "speed=3", "-p", "1"], 2, "torch's sgd refuses this"),
        (
            ["--model-kwargs", "speed"],
            2,
            "argument --model-kwargs: 'speed' is not KEY=VALUE; IMAGES stand before it",
        ),
        (["--grad-accum-steps", "17"], 2, "--grad-accum-steps 17, but a process has 16 crops of a batch"),
        (["--clip-grad", "0"], 2, "--clip-grad 0.0 is not above 0"),
        (["--sched", "cosines"], 2, "cosines"),
    ],
)
def test_wrong_flags_give_one_line(command, tmp_path, monkeypatch, capsys, settings, code, message):
    """In this process: starting one for each would cost a minute."""
    if torch.cuda.is_available() and "fp16" in settings:
        pytest.skip("this machine has a GPU")
    words = [word for word in command(tmp_path, "-a", PLAIN) if word not in ("--seed", "3")]
    monkeypatch.setattr(sys, "argv", [*words[1:-1], *settings, words[-1]])
    try:
        found = main(prog="train_student")
    except SystemExit as end:
        found = end.code
    out, errors = capsys.readouterr()
    assert errors.startswith("train_student: ") and message in errors
    assert (found, errors.count("\n"), out) == (code, 1, "")


def test_a_process_ends_with_the_code_and_no_traceback(command, tmp_path):
    done = finish(command(tmp_path, "-a", "resnet5"), 1)
    assert done.stderr.count("\n") == 1 and "near names are resnet50" in done.stderr
