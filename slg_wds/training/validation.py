"""How good the student is: top-1 and top-5 on images with targets, agreement with held-out labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from slg_wds import LabelSet, SoftLabelLoader, open_labels
from slg_wds.concurrency.prefetch import window
from slg_wds.config import EvaluateConfig, SourceConfig, parse_store_options
from slg_wds.errors import NoTargetsError, UsageError
from slg_wds.images import decode, open_source
from slg_wds.images.targets import resolve_targets
from slg_wds.labelset.class_names import named_classes
from slg_wds.teachers import Preprocessing, eval_transform
from slg_wds.training.flags import Settings
from slg_wds.training.processes import summed
from slg_wds.transforms.normalisation import Normalisation

if TYPE_CHECKING:
    from slg_wds.replay.batch import Batch
    from slg_wds.replay.device import DeviceLoader


class Score(NamedTuple):
    """What a validation found; the same in all processes.

    Attributes:
        percent: which decides what the best checkpoint is; higher is better.
        figures: all that was measured, by names for a log.
        text: the same in words.
    """

    percent: float
    figures: dict[str, float]
    text: str


Validation = Callable[[nn.Module], Score]


def open_validations(
    args: Settings,
    labels: list[LabelSet],
    num_classes: int,
    preprocessing: Preprocessing,
    threads: int,
) -> list[Validation]:
    """Open the validations that the flags and folders give: IMAGES/val, then --val-softlabels.

    The first of them decides which checkpoint is the best.
    """
    found: list[Validation] = []
    if args.data and ("://" in args.data or (Path(args.data) / "val").is_dir()):
        found.append(HardTargets(args, args.data, labels, num_classes, preprocessing, threads))
    if args.val_softlabels:
        found.append(SoftTargets(args, args.val_softlabels, num_classes, preprocessing, threads))
    return found


class HardTargets:
    """Top-1 and top-5 with the student's own evaluation transform; each process takes its part of the images."""

    def __init__(
        self,
        args: Settings,
        data: str,
        labels: list[LabelSet],
        num_classes: int,
        preprocessing: Preprocessing,
        threads: int,
    ) -> None:
        self.args, self.data, self.preprocessing, self.threads = args, data, preprocessing, threads
        options = SourceConfig(split="val", store_options=parse_store_options(args.store_option))
        self.source = open_source(data, options, need_targets=True)
        self.plan = self.source.plan(0, 1 << 20, target_of=self._classes(labels, num_classes))
        if int(self.plan.targets.max(initial=0)) >= num_classes:
            raise NoTargetsError(
                f"val has the class {self.plan.targets.max()}, the student {num_classes} classes",
                url=data,
            )
        self.normalised = Normalisation(preprocessing.mean, preprocessing.std, args.device)

    def _classes(
        self, labels: list[LabelSet], num_classes: int
    ) -> Sequence[int | None] | Callable[[int], int | None] | None:
        """The class of each folder: by the label set's class names, else as `slg-wds evaluate` does it."""
        folders = self.source.classes
        if folders is None:
            return None
        names = (named_classes(labels[0]) if labels else None) or []
        if not self.args.class_map and len(names) == num_classes and set(folders) <= set(names):
            return [names.index(folder) for folder in folders]
        config = EvaluateConfig(data=self.data, arch=self.args.arch, class_map=self.args.class_map)
        targets = resolve_targets(config, folders, num_classes, None)
        if not targets.comparable:
            raise NoTargetsError(
                f"the {len(folders)} class folders of val are not the student's {num_classes} classes",
                hint="name them as the train folders or by WordNet ids, or give --class-map",
                url=self.data,
            )
        return targets.of_class

    def __call__(self, model: nn.Module) -> Score:
        """Return the accuracies in percent; top-1 decides."""
        counts = torch.zeros(3, dtype=torch.float64, device=self.args.device)  # top-1, top-5, images
        for images, targets in self._batches():
            logits = model(self.normalised(images.to(self.args.device)))
            hits_N5 = logits.topk(min(5, logits.shape[1])).indices == targets.to(self.args.device)[:, None]
            counts[0] += hits_N5[:, 0].sum()
            counts[1] += hits_N5.sum()
            counts[2] += len(targets)
        top1, top5, images_seen = summed(counts)
        top1, top5 = 100 * top1 / images_seen, 100 * top5 / images_seen
        text = f"top-1 {top1:.2f}%, top-5 {top5:.2f}% on {images_seen:.0f} images"
        return Score(top1, {"top1": top1, "top5": top5}, text)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of this process's part: uint8 [N, 3, S, S], targets int64 [N]."""
        size = max(1, self.args.batch_size // self.args.ranks)
        rows: list[tuple[Tensor, int]] = []
        with ThreadPoolExecutor(self.threads) as pool:
            for target, image in window(self._submitted(pool), 4 * self.threads):
                rows.append((image.result(), target))
                if len(rows) == size:
                    yield _stacked(rows)
                    rows = []
        if rows:
            yield _stacked(rows)

    def _submitted(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, Future[Tensor]]]:
        for shard in range(self.plan.num_shards):
            part, read = self.plan.shard(shard), self.source.reader(self.plan, shard)
            for number in range(part.start, part.stop):
                if number % self.args.ranks == self.args.rank and self.plan.targets[number] >= 0:
                    yield int(self.plan.targets[number]), pool.submit(self._image, read, number)

    def _image(self, read: Callable[[int], bytes], number: int) -> Tensor:
        return eval_transform(decode(read(number), path=self.plan.paths[number]), self.preprocessing)


class SoftTargets:
    """KL(labels || student) in nats, and how often both have the same likeliest class, on one crop of each image.

    The labels are as they were made, at T0, so that the figures of all runs compare. A student that learns labels of T
    with its logits divided by --temp gets the teacher's logits times --temp / T; so for T0 they are divided by
    --temp T0 / T.
    """

    def __init__(
        self, args: Settings, url: str, num_classes: int, preprocessing: Preprocessing, threads: int
    ) -> None:
        options = parse_store_options(args.store_option)
        labels = open_labels(url, store_options=options)
        if labels.num_classes != num_classes:
            raise UsageError(
                f"held-out labels over {labels.num_classes} classes, not {num_classes}", url=labels.url
            )
        self.args, self.temperature = args, args.temp
        if last := args.label_temp_end or args.label_temp:
            self.temperature *= labels.temperature / last
        loader = SoftLabelLoader(
            labels,
            None if labels.identity.embed_images else args.val_images or args.data,
            global_batch_size=max(1, args.batch_size // args.ranks) * args.ranks,
            evaluation=True,
            size=preprocessing.input_size,
            interpolation=preprocessing.interpolation,
            threads=threads,
            cache_dir=args.cache_dir,
            store_options=options,
        )
        self.loader: DeviceLoader = loader.to(args.device, preprocessing.mean, preprocessing.std)

    def __call__(self, model: nn.Module) -> Score:
        """Return the divergence from the teacher, and the agreement with it in percent, which decides."""
        sums = torch.zeros(3, dtype=torch.float64, device=self.args.device)  # KL, agreements, images
        for batch in self.loader:
            sums += self._sums(model, batch)
        divergence, agreeing, images = summed(sums)
        kl, agreement = divergence / images, 100 * agreeing / images
        text = f"KL to the teacher {kl:.4f}, agreement {agreement:.2f}% on {images:.0f} held-out images"
        return Score(agreement, {"kl": kl, "agreement": agreement}, text)

    def _sums(self, model: nn.Module, batch: Batch) -> Tensor:
        teacher_BC = batch.labels.dense()
        student_BC = (model(batch.images).float() / self.temperature).log_softmax(1)
        divergence_B = (torch.xlogy(teacher_BC, teacher_BC) - teacher_BC * student_BC).sum(1)
        agrees_B = teacher_BC.argmax(1) == student_BC.argmax(1)
        return torch.stack(
            [(one * batch.mask).double().sum() for one in (divergence_B, agrees_B, batch.mask)]
        )


def _stacked(rows: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in rows]), torch.tensor([target for _, target in rows])
