"""Do students learn from stored embeddings what they learn from the live teacher?

usage: embeddings.py [--crops 100] [--steps 300] [--seeds 5] [--size 96] [--loss cosine]

EfficientNet-Lite0 without its head gives 1280 features for crops of real photographs. A small student with a linear
projector is trained from scratch for the same steps, on the same crops in the same order, to match the embeddings that
are stored as int8 and as float16, and those of the live teacher, which sees each replayed crop. Measured is, on crops
of a view of each photograph that was kept from training and of photographs that were kept whole: the cosine to the
teacher's own embedding, and how many of the 10 training crops that are nearest to a held-out crop by the student's
features are among the 10 nearest by the teacher's. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from learning import lay_out
from students import normalised, run_in_scratch, small_cnn, spread, table, train
from torch import Tensor, nn
from torch.nn import functional as F

import slg_wds
from slg_wds import EmbeddingLoss, SoftLabelLoader
from slg_wds.teachers.load import load_teacher
from slg_wds.teachers.spec import TeacherSpec
from slg_wds.teachers.teacher import Teacher

NEAREST = 10
LOSSES = {"cosine": {}, "both": {"cosine": 0.9, "smooth_l1": 0.1}}
LIVE = "the live teacher"


def headless() -> nn.Module:
    """Return the teacher that `slg-wds generate` calls: EfficientNet-Lite0, 1280 pooled features."""
    from slg_wds.demo.teacher import lite0

    model = lite0()
    model.reset_classifier(0)  # type: ignore[operator]
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--loss", choices=list(LOSSES), default="cosine")
    run_in_scratch(experiment, parser.parse_args())


def experiment(args: argparse.Namespace, folder: Path) -> None:
    start = time.monotonic()
    counts = lay_out(folder)
    teacher = load_teacher(TeacherSpec("private", f"{__file__}:headless"), headless=True)
    urls = {values: generate(folder, "train", args.crops, values) for values in ("int8", "float16")}
    images, live = replayed(urls["int8"], teacher, args.size)
    rows = {values: stored(url) for values, url in urls.items()} | {LIVE: live}
    held = {
        split: replayed(generate(folder, split, 20, "float16"), teacher, args.size)
        for split in ("held", "unseen")
    }
    print(
        f"{len(images)} crops of {counts['train']} views; {counts['held']} views held out, {counts['unseen']} of "
        f"unseen photographs; student of {args.size} pixels, loss {args.loss}, {args.steps} steps of {args.batch}, "
        f"{args.seeds} seeds; embedding and replay {time.monotonic() - start:.0f} s",
        flush=True,
    )
    found = {kind: trained(args, images, of_kind, live, held) for kind, of_kind in rows.items()}
    report(found, {kind: float(F.cosine_similarity(of_kind, live).mean()) for kind, of_kind in rows.items()})
    print(f"{time.monotonic() - start:.0f} s in all")


def generate(folder: Path, split: str, crops: int, values: str) -> str:
    target = str(folder / f"{values}-{split}")
    config = slg_wds.GenerateConfig(
        data=str(folder / split), save_path=target, teacher_source="private", arch=f"{__file__}:headless",
        output="embedding", values=values, num_crops=crops, embed_images="original", seed=len(split),
    )  # fmt: skip
    slg_wds.generate(config)
    return target


def loader(url: str, size: int | None = None) -> SoftLabelLoader:
    """Return a loader of all crops of a set, in one order."""
    crops = slg_wds.open_labels(url).num_crops
    return SoftLabelLoader(url, global_batch_size=crops, crops_per_image=crops, size=size, shuffle=False)


def stored(url: str) -> Tensor:
    """Return the stored embeddings of all crops, float32 [N, D]."""
    return torch.cat([next(iter(batch.embedding.values())) for batch in loader(url, 32)])


def replayed(url: str, teacher: Teacher, size: int) -> tuple[Tensor, Tensor]:
    """Return all crops at the student's size, uint8 [N, 3, S, S], and what the teacher gives for the replayed crops."""
    seen = loader(url, teacher.preprocessing.input_size)
    with torch.no_grad():
        # Cloned: what inference mode made cannot be trained with.
        parts = [teacher.logits(part).clone() for batch in seen for part in torch.split(batch.images, 50)]
    return torch.cat([batch.images for batch in loader(url, size)]), torch.cat(parts)


def trained(
    args: argparse.Namespace,
    images: Tensor,
    embeddings: Tensor,
    live: Tensor,
    held: dict[str, tuple[Tensor, Tensor]],
) -> dict[str, list[float]]:
    """Train one student per seed; return the cosine and the agreement of neighbours on each held-out set."""
    found: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        student = small_cnn(embeddings.shape[1]).to(memory_format=torch.channels_last)
        criterion = EmbeddingLoss(**LOSSES[args.loss])
        train(
            student, images, lambda rows: embeddings[rows], args.steps, args.batch, args.rate, seed,
            criterion=criterion,
        )  # fmt: skip
        own = outputs(student, images)[0]
        for split, (crops, theirs) in held.items():
            features, projected = outputs(student, crops)
            cosine = float(F.cosine_similarity(projected, theirs).mean())
            found.setdefault(f"{split} cosine", []).append(cosine)
            both = nearest(features, own)[:, :, None] == nearest(theirs, live)[:, None, :]
            found.setdefault(f"{split} nearest", []).append(100 * float(both.any(2).float().mean()))
    return found


@torch.no_grad()
def outputs(student: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the student's features and what its projector makes of them."""
    student.eval()
    features = torch.cat([student[:-1](normalised(part)) for part in torch.split(images, 256)])
    return features, student[-1](features)


def nearest(queries: Tensor, rows: Tensor) -> Tensor:
    """Return the numbers of the NEAREST rows by cosine, int64 [N, NEAREST]."""
    return (F.normalize(queries, dim=1) @ F.normalize(rows, dim=1).T).topk(NEAREST).indices


def report(found: dict[str, dict[str, list[float]]], faithful: dict[str, float]) -> None:
    header = ["trained from", "cosine of the embeddings", "cosine, held-out views", "same neighbours there, %",
              "cosine, unseen photographs", "held-out cosine minus that of the live teacher's"]  # fmt: skip
    lines = []
    for kind, one in found.items():
        apart = [a - b for a, b in zip(one["held cosine"], found[LIVE]["held cosine"], strict=True)]
        lines.append(
            [
                kind, f"{faithful[kind]:.5f}", spread(one["held cosine"]), spread(one["held nearest"], 1),
                spread(one["unseen cosine"]),
                f"{statistics.mean(apart):+.4f}: " + " ".join(f"{value:+.4f}" for value in apart),
            ]
        )  # fmt: skip
    print(table(header, lines), flush=True)


if __name__ == "__main__":
    main()
