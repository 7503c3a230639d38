"""Top-1 and top-5 on images with targets."""

from __future__ import annotations

import torch
from torch import nn

from slg_wds.console import counted
from slg_wds.errors import NoTargetsError
from slg_wds.format.manifest.plan import Plan
from slg_wds.images import ImageSource
from slg_wds.images.class_folders import ClassFolders
from slg_wds.teachers import Preprocessing
from slg_wds.training.flags import Settings
from slg_wds.training.processes import say, summed
from slg_wds.training.transfer import sent
from slg_wds.training.validation.class_folders import targets_of_val
from slg_wds.training.validation.images import PlannedImages
from slg_wds.training.validation.score import Score
from slg_wds.transforms.normalisation import Normalisation


class HardTargets:
    """Top-1 and top-5 with the student's own evaluation transform; each process takes its part of the images."""

    def __init__(
        self,
        args: Settings,
        source: ImageSource,
        folders: ClassFolders,
        num_classes: int,
        preprocessing: Preprocessing,
    ) -> None:
        self.args = args
        plan = source.plan(0, 1 << 20, target_of=targets_of_val(args, folders, source.classes, num_classes))
        if int(plan.targets.max(initial=0)) >= num_classes:
            raise NoTargetsError(
                f"val has the class {plan.targets.max()}, the student {num_classes} classes",
                url=source.url,
            )
        if not (plan.targets >= 0).any():
            raise NoTargetsError(
                f"no image of val has one of the student's {num_classes} classes", url=source.url
            )
        self._tell_left_out(plan)
        self.images = PlannedImages(args, source, plan, preprocessing)
        self.normalised = Normalisation(preprocessing.mean, preprocessing.std, args.device)

    def _tell_left_out(self, plan: Plan) -> None:
        without = int((plan.targets < 0).sum())
        if without:
            say(
                self.args,
                f"validation leaves out {without:,} of {counted(plan.num_samples, 'image')}, without a target",
            )

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
