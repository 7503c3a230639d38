"""Top-1 and top-5 on images with targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from slg_wds import LabelSet
from slg_wds.config import EvaluateConfig, SourceConfig, parse_store_options
from slg_wds.errors import NoTargetsError
from slg_wds.images import open_source
from slg_wds.images.targets import resolve_targets
from slg_wds.labelset.class_names import named_classes
from slg_wds.teachers import Preprocessing
from slg_wds.training.flags import Settings
from slg_wds.training.processes import summed
from slg_wds.training.transfer import sent
from slg_wds.training.validation.images import PlannedImages
from slg_wds.training.validation.score import Score
from slg_wds.transforms.normalisation import Normalisation


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
        self.args, self.data = args, data
        options = SourceConfig(split="val", store_options=parse_store_options(args.store_option))
        self.source = open_source(data, options, need_targets=True)
        plan = self.source.plan(0, 1 << 20, target_of=self._classes(labels, num_classes))
        if int(plan.targets.max(initial=0)) >= num_classes:
            raise NoTargetsError(
                f"val has the class {plan.targets.max()}, the student {num_classes} classes",
                url=data,
            )
        if not (plan.targets >= 0).any():
            raise NoTargetsError(f"no image of val has one of the student's {num_classes} classes", url=data)
        self.images = PlannedImages(args, self.source, plan, preprocessing, threads)
        self.normalised = Normalisation(preprocessing.mean, preprocessing.std, args.device)

    def _classes(
        self, labels: list[LabelSet], num_classes: int
    ) -> Sequence[int | None] | Callable[[int], int | None] | None:
        """The class of each folder: by the label set's class names, else as `slg-wds evaluate` does it."""
        folders = self.source.classes
        if folders is None:
            # Samples of tars have the teacher's class numbers; labels over a subset number its classes anew.
            subset = labels[0].identity.class_subset if labels else None
            return None if subset is None else {number: place for place, number in enumerate(subset)}.get
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
        for images, targets, _ in self.images:
            logits = model(self.normalised(sent(images, self.args.device)))
            hits_N5 = logits.topk(min(5, logits.shape[1])).indices == sent(targets, self.args.device)[:, None]
            counts[0] += hits_N5[:, 0].sum()
            counts[1] += hits_N5.sum()
            counts[2] += len(targets)
        top1, top5, images_seen = summed(counts)
        top1, top5 = 100 * top1 / images_seen, 100 * top5 / images_seen
        text = f"top-1 {top1:.2f}%, top-5 {top5:.2f}% on {images_seen:.0f} images"
        return Score(top1, {"top1": top1, "top5": top5}, text)
