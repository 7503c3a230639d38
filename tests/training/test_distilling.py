"""Students of embeddings: what a step does, what a checkpoint holds, how they are validated, and what is refused."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import slg_wds
from slg_wds import cli
from slg_wds.teachers.towers.neighbours import accuracy_of_neighbours
from slg_wds.training.command import main
from slg_wds.training.distiller import DistillationLoss, Distiller
from slg_wds.training.flags import parse
from slg_wds.training.step import train_step
from slg_wds.training.student import set_up
from support.models.names import TINY
from support.models.tiny_students import features, weights
from support.paths import MODELS
from support.training import SHOWN, STUDENTS, common, rows_of, same, train

TEACHERS = {"tiny_teacher.py:tiny": 20, "towers.py:shares": 48}
FEATURES = ("-a", f"{STUDENTS}:features", "--distill", "embedding")
SMALL = ("-a", "test_resnet", "--size", "32", "--distill", "embedding", "--num_crops", "1", "--epochs", "1")


def embed(images: Path, target: Path, **more) -> str:
    config = {
        "arch": f"{TINY},{MODELS / 'towers.py'}:shares", "num_crops": 12, "samples_per_shard": 5, "num_seg": 16,
        "output": "embedding", "teacher_source": "private", **more,
    }  # fmt: skip
    slg_wds.generate(slg_wds.GenerateConfig(data=str(images), save_path=str(target), **config))
    return str(target)


@pytest.fixture(scope="module")
def embedded(photographs, tmp_path_factory) -> str:
    return embed(photographs, tmp_path_factory.mktemp("embedded") / "set")


@pytest.fixture(scope="module")
def split(photographs, tmp_path_factory) -> Path:
    """The photographs as train, and two of each class as val."""
    folder = tmp_path_factory.mktemp("split")
    shutil.copytree(photographs / "train", folder / "train")
    for path in sorted((photographs / "train").glob("*/*_[01].jpg")):
        (folder / "val" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "val" / path.parent.name)
    return folder


def distiller(norm: str = "none", projects: bool = True) -> Distiller:
    torch.manual_seed(7)
    return Distiller(features(), TEACHERS, 32, projects, norm).eval()


def made_up_batch(crops: int = 12) -> SimpleNamespace:
    draw = torch.Generator().manual_seed(1)
    embedding = {name: torch.randn(crops, dim, generator=draw) for name, dim in TEACHERS.items()}
    return SimpleNamespace(
        images=torch.randn(crops, 3, 32, 32, generator=draw), labels=None, embedding=embedding
    )


def stepped(*flags: str) -> tuple[Distiller, float]:
    args = parse(["--lr", "0.5", "--momentum", "0", "--wd", "0", "--distill", "embedding", *flags])
    args.rank, args.ranks, args.device = 0, 1, torch.device("cpu")
    training = set_up(args, distiller(), SHOWN)
    criterion = DistillationLoss(args.embedding_loss, training.model.compared)
    return training.model, train_step(args, training, criterion, made_up_batch()).item()


@pytest.mark.parametrize("pieces", ["1", "5"])
def test_a_step_follows_the_gradient_of_the_mean_over_teachers(pieces):
    model, batch = distiller(), made_up_batch()
    rows = model.backbone(batch.images)
    losses = []
    for (name, target), projector in zip(batch.embedding.items(), model.projectors, strict=True):
        own = rows @ projector.weight.T + projector.bias
        assert own.shape[1] == TEACHERS[name]
        cosine = (own * target).sum(1) / own.norm(dim=1) / target.norm(dim=1)
        apart = (own - target).abs()
        smooth = torch.where(apart < 1, apart.square() / 2, apart - 0.5).mean(1)
        losses.append((0.9 * (1 - cosine) + 0.1 * smooth).mean())
    loss = sum(losses) / 2
    loss.backward()
    found, value = stepped("--embedding-loss", "both", "--grad-accum-steps", pieces)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    for (name, one), (_, other) in zip(found.named_parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(one, other - 0.5 * other.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_both_sides_are_normalised_alike():
    batch = made_up_batch()
    raw = distiller()(batch.images)
    unit, layer = distiller("unit"), distiller("layer")
    for name, rows in raw.items():
        torch.testing.assert_close(unit(batch.images)[name], rows / rows.norm(dim=1, keepdim=True))
        centred = rows - rows.mean(1, keepdim=True)
        expected = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(layer(batch.images)[name], expected)
        assert unit.compared(batch.embedding[name]).norm(dim=1).allclose(torch.ones(12))
    # Smooth L1 of what is exactly the teacher's direction is 0 by unit length alone.
    double = {name: 2 * one for name, one in batch.embedding.items()}
    ours = {name: unit.compared(one) for name, one in double.items()}
    assert DistillationLoss("smooth_l1", unit.compared)(ours, batch.embedding) < 1e-12
    assert DistillationLoss("smooth_l1", distiller().compared)(double, batch.embedding) > 0.1


def test_relation_needs_no_projector():
    model = distiller(projects=False)
    batch = made_up_batch()
    rows = model.backbone(batch.images)
    assert not model.projector_states() and all(one is not None for one in model(batch.images).values())
    expected = [slg_wds.RelationLoss()(rows, one) for one in batch.embedding.values()]
    found = DistillationLoss("relation", model.compared)(model(batch.images), batch.embedding)
    assert found.item() == pytest.approx(sum(expected).item() / 2)


@pytest.mark.parametrize(
    ("model", "shape"), [(nn.Flatten(0), r"\[6144\]"), (nn.Identity(), r"\[2, 3, 32, 32\]")]
)
def test_a_student_without_pooled_features_is_refused(model, shape):
    with pytest.raises(slg_wds.SlgWdsError, match=f"gives {shape} for 2 images, not features"):
        Distiller(model, TEACHERS, 32, True, "none")


def test_the_vote_of_neighbours_is_that_of_its_definition():
    draw = torch.Generator().manual_seed(0)
    rows, queries = (torch.randn(count, 5, generator=draw) for count in (40, 30))
    classes, targets = (torch.randint(3, (count,), generator=draw) * 4 for count in (40, 30))
    for k in (1, 7, 100):
        hits = 0
        for query, target in zip(queries, targets.tolist(), strict=True):
            cosines = F.cosine_similarity(query[None], rows)
            votes = {0: 0.0, 4: 0.0, 8: 0.0}
            for place in cosines.argsort(descending=True)[:k].tolist():
                votes[int(classes[place])] += float((cosines[place] / 0.07).exp())
            hits += max(votes, key=votes.get) == target
        assert accuracy_of_neighbours(rows, classes, queries, targets, (k,)) == {k: hits / 30}


def test_amp_changes_no_neighbour():
    """Validation runs under autocast, which would round cosines to bf16: all of these would be 1."""
    angles = torch.linspace(0, 0.05, 20)
    rows, classes = torch.stack([angles.cos(), angles.sin()], dim=1), torch.arange(20)
    with torch.autocast("cpu", torch.bfloat16):
        assert accuracy_of_neighbours(rows, classes, rows, classes, (1,)) == {1: 1.0}


def test_students_of_timm_are_kept_without_their_projectors(split, embedded, tmp_path, capsys):
    held = embed(split, tmp_path / "held", num_crops=1, seed=5)
    flags = ("-a", "test_resnet", "--size", "32", "--distill", "embedding", "--epochs", "8", "--ema", "0.5")
    train(tmp_path / "out", embedded, split, *flags, "--clip-grad", "1", "--val-softlabels", held)
    said = capsys.readouterr().out
    assert (
        "embeddings tiny_teacher.py:tiny of 20, towers.py:shares of 48" in said and "held-out images" in said
    )
    found = torch.load(tmp_path / "out" / "model_best.pth.tar", weights_only=True)
    student = timm.create_model("test_resnet", num_classes=0).eval()
    student.load_state_dict(found["state_dict"])
    assert {name: list(one["weight"].shape) for name, one in found["projectors"].items()} == {
        name: [dim, student.num_features] for name, dim in TEACHERS.items()
    }
    last = rows_of(tmp_path / "out")[-1]
    assert float(last["eval_knn20"]) > 20 and float(last["eval_ema_knn10"]) >= 0
    newest = torch.load(tmp_path / "out" / "checkpoint.pth.tar", weights_only=True)
    student.load_state_dict(newest["state_dict"])
    assert float(last["eval_cosine"]) == pytest.approx(
        mean_cosine(student, newest["projectors"], held, split), abs=1e-5
    )


def test_evaluate_measures_a_trained_student_as_training_does(split, embedded, tmp_path):
    train(tmp_path, embedded, split, *SMALL, "--interpolation", "bilinear", "--embedding-loss", "relation")
    (score,) = slg_wds.evaluate_embeddings(
        slg_wds.EvaluateConfig(
            data=str(split), arch="test_resnet", teacher_path=str(tmp_path / "checkpoint.pth.tar"),
            output="embedding", input_size=32, interpolation="bilinear", linear=False,
        )
    )  # fmt: skip
    (row,) = rows_of(tmp_path)
    assert {f"eval_knn{k}": f"{100 * share:.6g}" for k, share in score.knn.items()} == {
        name: row[name] for name in ("eval_knn20", "eval_knn10")
    }
    assert (score.train, score.val, score.linear) == (36, 12, None)


def test_the_command_that_is_named_without_a_validation_measures_the_student(
    split, photographs, embedded, tmp_path, capsys
):
    train(tmp_path / "my student", embedded, photographs, *SMALL)
    *_, named = capsys.readouterr().out.splitlines()
    command = re.fullmatch(r"the student: .*; slg-wds (evaluate IMAGES .*) measures it", named)[1]
    words = shlex.split(command.replace("IMAGES", shlex.quote(str(split))))
    assert cli.main([*words, "--no-linear"]) == 0
    assert "k-NN" in capsys.readouterr().out


def mean_cosine(student: nn.Module, projectors, held: str, images: Path) -> float:
    """Of the first crop of every image, in batches of all."""
    loader = slg_wds.SoftLabelLoader(
        held, str(images), global_batch_size=36, crops_per_image=1, shuffle=False, size=32, threads=1
    )
    config = timm.data.resolve_model_data_config(student)
    (batch,) = loader.to("cpu", config["mean"], config["std"])
    with torch.no_grad():
        rows = student(batch.images)
    found = [
        F.cosine_similarity(F.linear(rows, one["weight"], one["bias"]), batch.embedding[name]).mean()
        for name, one in projectors.items()
    ]
    return float(sum(found) / len(found))


def stopped_after(steps: int, monkeypatch) -> None:
    """Ctrl-C in the step after so many."""
    from slg_wds.training import loop

    def step(args, training, *more):
        if training.progress.step == steps:
            raise KeyboardInterrupt
        return train_step(args, training, *more)

    monkeypatch.setattr(loop, "train_step", step)


def test_a_resumed_run_ends_with_the_very_weights(photographs, embedded, tmp_path, monkeypatch):
    flags = (
        *FEATURES,
        "--seed",
        "3",
        "--ema",
        "0.9",
        "--opt",
        "adamw",
        "--filter-bias-and-bn",
        "--epochs",
        "9",
    )
    train(tmp_path / "whole", embedded, photographs, *flags)
    stopped_after(14, monkeypatch)
    parts = ["--save_checkpoint_path", str(tmp_path / "parts"), "--checkpoint-every", "5", "--resume", "auto"]
    words = [*common(embedded), *flags, *parts, str(photographs)]
    assert main(words) == 130
    monkeypatch.undo()
    halfway = torch.load(tmp_path / "parts" / "checkpoint.pth.tar", weights_only=True)
    assert halfway["progress"]["step"] == 10 and halfway["progress"]["loader"]["batches"] == 1
    assert main(words) == 0
    same(tmp_path / "whole", tmp_path / "parts")
    names = set(weights(str(tmp_path / "whole" / "checkpoint.pth.tar")))
    assert {"/projectors/towers.py:shares/weight", "/ema_projectors/towers.py:shares/bias"} <= names


def test_every_weight_has_a_gradient_in_each_process():
    """DDP would refuse the second step if one had none; it has a projector for each teacher in one forward."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        args = parse(["--distill", "embedding"])
        args.rank, args.ranks, args.device = 0, 1, torch.device("cpu")
        training = set_up(args, distiller(), SHOWN)
        training.net = nn.parallel.DistributedDataParallel(training.model)
        for _ in range(3):
            train_step(args, training, DistillationLoss("cosine", training.model.compared), made_up_batch())
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_and_validate_as_one(split, embedded, tmp_path):
    """The features are without batch statistics, which each process has of its own."""
    flags = ("-a", f"{STUDENTS}:calm", "--distill", "embedding", "--epochs", "5", "--seed", "3")
    train(tmp_path / "one", embedded, split, *flags)
    words = [*common(embedded), *flags, "--save_checkpoint_path", str(tmp_path / "two"), str(split)]
    ranks = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "slg_wds",
    ]
    done = subprocess.run([*ranks, "train", *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (weights(str(tmp_path / name / "checkpoint.pth.tar")) for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-6)
    knn = [[row["eval_knn20"] for row in rows_of(tmp_path / name)] for name in ("one", "two")]
    assert knn[0] == knn[1] and len(knn[0]) == 2


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (["--num_classes", "7"], 2, "--num_classes is for labels, and --distill embedding learns none"),
        (["--temp", "2"], 2, "--temp is for labels"),
        (["--mixup_cutmix"], 2, "--mixup_cutmix is for labels"),
        (["--label-weights", "1"], 2, "--label-weights is for labels"),
        (
            ["--distill", "labels", "--embedding-norm", "unit"],
            2,
            "--embedding-norm is for --distill embedding",
        ),
        (["--distill", "labels"], 1, "the set holds embeddings"),
        (["--embedding-loss", "relation", "--grad-accum-steps", "2"], 2, "which --grad-accum-steps parts"),
        (["--embedding-loss", "relation", "--val-softlabels", "x"], 2, "--val-softlabels needs a projector"),
        (["--embedding-loss", "l2"], 2, "invalid choice: 'l2'"),
        (["--knn-images", "0"], 2, "--knn-images 0 is below 1"),
    ],
)
def test_wrong_flags_give_one_line(embedded, photographs, tmp_path, capsys, settings, code, message):
    words = [
        *FEATURES,
        "--softlabel_path",
        embedded,
        "-b",
        "16",
        *settings,
        "--save_checkpoint_path",
        str(tmp_path),
    ]
    try:
        found = main([*words, str(photographs)])
    except SystemExit as end:
        found = end.code
    errors = capsys.readouterr().err
    assert message in errors and (found, errors.count("\n")) == (code, 1)


def test_sets_and_checkpoints_of_labels_are_refused(labels, embedded, photographs, tmp_path, capsys):
    path = ["--save_checkpoint_path", str(tmp_path), "-b", "16", "-j", "1"]
    assert main([*FEATURES, "--softlabel_path", labels, *path, str(photographs)]) == 1
    assert "holds labels, and --distill embedding needs embeddings" in capsys.readouterr().err
    train(
        tmp_path / "out", labels, photographs, "-a", f"{STUDENTS}:plain", "--epochs", "1", "--num_crops", "1"
    )
    words = ["--resume", str(tmp_path / "out" / "checkpoint.pth.tar"), "--softlabel_path", embedded]
    assert main([*FEATURES, *words, *path, str(photographs)]) == 2
    assert "the checkpoint is of --distill labels" in capsys.readouterr().err
