"""How good embeddings are: k-NN and a linear probe, which learn from images of train and are tested on val."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from slg_wds.concurrency.threads import threads_beside_forwards
from slg_wds.config import EvaluateConfig
from slg_wds.console import counted, note
from slg_wds.engines.reports.live import ImageProgress
from slg_wds.errors import MissingDependencyError, TeacherOutputError
from slg_wds.generation.evaluation.images import batches

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from slg_wds.format.manifest.plan import Plan
    from slg_wds.images import ImageSource
    from slg_wds.teachers import Ensemble, Teacher


@dataclass(frozen=True)
class EmbeddingScore:
    """How good the embeddings of one teacher are.

    Attributes:
        name: of the teacher.
        dim: numbers of its embedding.
        train: images that were learned from.
        val: images that were tested on.
        knn: top-1 accuracy in 0..1 by the number of neighbours, see `teachers/towers/neighbours.py`.
        linear: top-1 accuracy in 0..1 of the linear probe, see `teachers/towers/linear_probe.py`; None without it.
        strength: C of that probe.
    """

    name: str
    dim: int
    train: int
    val: int
    knn: dict[int, float]
    linear: float | None = None
    strength: float | None = None

    def lines(self, data: str) -> list[str]:
        """Describe the figures for a person.

        Args:
            data: where the images are.
        """
        learned = f"{counted(self.train, 'image')} of train"
        knn = ", ".join(f"{share:.2%} with {k} neighbours" for k, share in self.knn.items())
        found = [
            f"{self.name}, {self.dim} numbers, on {counted(self.val, 'image')} of val of {data}, from {learned}:",
            f"  k-NN top-1 {knn}",
        ]
        if self.linear is not None:
            found.append(f"  linear probe top-1 {self.linear:.2%} (C = {self.strength:g})")
        return found


def evaluate_embeddings(config: EvaluateConfig, device: str | None = None) -> list[EmbeddingScore]:
    """Measure the embeddings of teachers, or of students, by k-NN and by a linear probe.

    Both learn from the images of DATA/train, at most --train-images of them, and are tested on those of DATA/val, or of
    the split that the options name. All images are seen under the model's own evaluation transform.

    Args:
        config: the options, with the output "embedding".
        device: where the teachers run, such as "cuda:0"; None for the GPU of the options, else this process's own.

    Returns:
        The figures of each teacher. They are the same in every run on one machine.

    Raises:
        NoTargetsError: there are no class folders, or val has one that train lacks.
        MissingDependencyError: the linear probe needs scikit-learn.
        SlgWdsError: images or teachers cannot be loaded.
    """
    from slg_wds.images.pairing import paired_plans, some_with_targets
    from slg_wds.teachers.faults import hint_if_full

    config = dataclasses.replace(config, output="embedding")
    config.check()
    if config.linear and find_spec("sklearn") is None:
        raise MissingDependencyError(
            "the linear probe needs scikit-learn",
            hint="pip install 'slg-wds[embeddings]', or give --no-linear",
        )
    sources = [_open(config, split) for split in ("train", config.split or "val")]
    train, val = paired_plans(*sources)
    plans = some_with_targets(train, config.train_images), val
    with hint_if_full(config.IF_MEMORY_IS_FULL):
        towers = _load(config, device)
        (own, classes), (queries, targets) = _all_features(config, towers, sources, plans)
    rows = zip(towers.teachers, own, queries, strict=True)
    with hint_if_full("lower --train-images"):  # no forward any more: the embeddings themselves are compared
        return [_score(config, teacher, one, classes, other, targets) for teacher, one, other in rows]


def _load(config: EvaluateConfig, device: str | None) -> Ensemble:
    from slg_wds.generation.setup import load_teachers
    from slg_wds.teachers.about import about_device

    towers = load_teachers(config, None, config.images_of_forward, device)
    note(*(f"teacher {one}" for one in towers.teachers))
    note(*about_device(towers, config.forward_threads, cpu_asked=device == "cpu"))
    return towers


def _all_features(
    config: EvaluateConfig, towers: Ensemble, sources: Sequence[ImageSource], plans: Sequence[Plan]
) -> list[tuple[list[torch.Tensor], torch.Tensor]]:
    """Return what `_features` does, for each of the sources with its plan."""
    total = sum(int((plan.targets >= 0).sum()) for plan in plans)
    threads = config.forward_threads
    with threads_beside_forwards(config.num_workers, threads) as pool, ImageProgress(total) as progress:
        return [
            _features(config, towers, source, plan, pool, progress)
            for source, plan in zip(sources, plans, strict=True)
        ]


def _open(config: EvaluateConfig, split: str) -> ImageSource:
    from slg_wds.images import open_source

    return open_source(config.data, dataclasses.replace(config, split=split), need_targets=True)


def _features(
    config: EvaluateConfig,
    towers: Ensemble,
    source: ImageSource,
    plan: Plan,
    pool: ThreadPoolExecutor,
    progress: ImageProgress,
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return for each teacher the embeddings of all images with a target, float32 [N, D], and the targets int64 [N]."""
    import torch

    rows: list[list[torch.Tensor]] = [[] for _ in towers.teachers]
    about: list[torch.Tensor] = []
    for inputs, targets in batches(config, source, plan, towers.preprocessings, pool):
        input_of = dict(zip(towers.preprocessings, inputs, strict=True))
        for of_teacher, teacher in zip(rows, towers.teachers, strict=True):
            of_teacher.append(_embedded(teacher, input_of[teacher.preprocessing], config.images_of_forward))
        about.append(targets)
        progress.add(len(targets))
    return [torch.cat(of_teacher) for of_teacher in rows], torch.cat(about)


def _embedded(teacher: Teacher, images: torch.Tensor, rows: int) -> torch.Tensor:
    """Return the embeddings of at most `rows` images, float32 [N, D] on the CPU. Raises TeacherOutputError for NaN."""
    import torch

    from slg_wds.teachers.faults import device_faults

    # Smaller batches are padded: a compiled teacher would be compiled again for each new size.
    padding = images.new_zeros(rows - len(images), *images.shape[1:])
    with device_faults(teacher.device, f"{teacher.name} failed"):
        found = teacher.logits(torch.cat([images, padding]).to(teacher.device))[: len(images)].cpu()
    if not bool(found.isfinite().all()):
        raise TeacherOutputError(
            f"{teacher.name} gave NaN or infinity",
            hint="try --precision fp32 or bf16, and check its weights",
        )
    return found


def _score(
    config: EvaluateConfig,
    teacher: Teacher,
    rows: torch.Tensor,
    classes: torch.Tensor,
    queries: torch.Tensor,
    targets: torch.Tensor,
) -> EmbeddingScore:
    from slg_wds.teachers.faults import device_faults
    from slg_wds.teachers.towers.linear_probe import linear_probe
    from slg_wds.teachers.towers.neighbours import accuracy_of_neighbours

    with device_faults(teacher.device, f"comparing the embeddings of {teacher.name} failed"):
        own, of_own, asked, of_asked = (one.to(teacher.device) for one in (rows, classes, queries, targets))
        knn = accuracy_of_neighbours(own, of_own, asked, of_asked)
    score = EmbeddingScore(teacher.arch, teacher.num_classes, len(rows), len(queries), knn)
    if not config.linear:
        return score
    note(f"{teacher.arch}: fitting a linear classifier to {counted(len(rows), 'image')}")
    found = linear_probe(rows.numpy(), classes.numpy(), queries.numpy(), targets.numpy())
    return dataclasses.replace(score, linear=found.top1, strength=found.strength)
