"""k-NN accuracy of a student's features: images of val among images of train."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from slg_wds.errors import UsageError
from slg_wds.images import ImageSource
from slg_wds.images.pairing import paired_plans, some_with_targets
from slg_wds.teachers import Preprocessing
from slg_wds.teachers.towers.neighbours import KS, accuracy_of_neighbours
from slg_wds.training.distiller import Distiller
from slg_wds.training.flags import Settings
from slg_wds.training.transfer import sent
from slg_wds.training.validation.images import PlannedImages, open_split
from slg_wds.training.validation.score import Score
from slg_wds.transforms.normalisation import Normalisation


class Neighbours:
    """Top-1 of a weighted vote of the nearest images of train, at most --knn-images of them drawn at random.

    Each process computes the features of its part of the images.

    Args:
        args: the flags.
        val: the images of val; those of train lie beside them.
        preprocessing: how the student is shown images.

    Raises:
        NoTargetsError: train or val has no classes, or val has one that train lacks.
    """

    def __init__(self, args: Settings, val: ImageSource, preprocessing: Preprocessing) -> None:
        self.args = args
        sources = open_split(args, "train"), val
        train, tested = paired_plans(*sources)
        plans = (some_with_targets(train, args.knn_images), tested)
        self.train, self.val = (
            PlannedImages(args, source, plan, preprocessing)
            for source, plan in zip(sources, plans, strict=True)
        )
        self.normalised = Normalisation(preprocessing.mean, preprocessing.std, args.device)

    def __call__(self, model: nn.Module) -> Score:
        """Return the accuracies in percent for each number of neighbours; the first decides."""
        if not isinstance(model, Distiller):
            raise UsageError("k-NN is for students of embeddings")
        (own, classes), (queries, targets) = (
            self._features(model, images) for images in (self.train, self.val)
        )
        found = accuracy_of_neighbours(own, classes, queries, targets)
        figures = {f"knn{k}": 100 * share for k, share in found.items()}
        said = ", ".join(
            f"{value:.2f}% with {k} neighbours" for k, value in zip(found, figures.values(), strict=True)
        )
        text = f"k-NN top-1 {said}; {len(targets)} images among {len(classes)}"
        return Score(figures[f"knn{KS[0]}"], figures, text)

    def _features(self, model: Distiller, images: PlannedImages) -> tuple[Tensor, Tensor]:
        """Return features [N, E] and targets [N] of all images, the same in all processes."""
        rows: list[Tensor] = []
        about: list[Tensor] = []
        for pixels, targets, numbers in images:
            rows.append(model.backbone(self.normalised(sent(pixels, self.args.device))).float().cpu())
            about.append(torch.stack([numbers, targets]))
        parts = [(torch.cat(rows), torch.cat(about, dim=1))] if rows else []
        if dist.is_initialized():
            gathered: list[list[tuple[Tensor, Tensor]]] = [[]] * self.args.ranks
            dist.all_gather_object(gathered, parts)
            parts = [part for of_rank in gathered for part in of_rank]
        features, named = torch.cat([one for one, _ in parts]), torch.cat([one for _, one in parts], dim=1)
        order = named[0].argsort()
        return features[order].to(self.args.device), named[1][order].to(self.args.device)
