"""One crop of each image of a held-out set, against what the teacher gave for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slg_wds import LabelSet, SoftLabelLoader
from slg_wds.config import parse_store_options
from slg_wds.errors import UsageError
from slg_wds.labelset.combining.averaging import assumed_temperature, check_classes
from slg_wds.labelset.opening import labels_at
from slg_wds.store import Location
from slg_wds.teachers import Preprocessing
from slg_wds.training.distiller import Distiller
from slg_wds.training.flags import Settings
from slg_wds.training.processes import say, summed, threads_of
from slg_wds.training.validation.score import Score

if TYPE_CHECKING:
    from slg_wds.replay.batch import Batch
    from slg_wds.replay.device import DeviceLoader


def held_out_loader(args: Settings, labels: LabelSet, preprocessing: Preprocessing) -> DeviceLoader:
    """Return a loader of the first crop of each image, in the order of the plan, on the device."""
    loader = SoftLabelLoader(
        labels,
        None if labels.identity.embed_images else args.val_images or args.data,
        global_batch_size=max(1, args.batch_size // args.ranks) * args.ranks,
        evaluation=True,
        size=preprocessing.input_size,
        interpolation=preprocessing.interpolation,
        threads=threads_of(args),
        cache_dir=args.cache_dir,
        store_options=parse_store_options(args.store_option),
    )
    return loader.to(args.device, preprocessing.mean, preprocessing.std)


class SoftTargets:
    """KL(labels || student) in nats, and how often both have the same likeliest class, on one crop of each image.

    The labels are as they were made, at T0, so that the figures of all runs compare. The student's logits are divided
    by T0 and by what they are of the teacher's: see `data.scale_of`.
    """

    def __init__(
        self,
        args: Settings,
        url: str,
        taught: Sequence[LabelSet],
        num_classes: int,
        preprocessing: Preprocessing,
    ) -> None:
        labels = labels_at(Location(url, parse_store_options(args.store_option)))
        if labels.num_classes != num_classes:
            raise UsageError(
                f"held-out labels over {labels.num_classes} classes, not {num_classes}", url=labels.url
            )
        for one in taught[:1]:
            check_classes(one, labels)
        self.args, self.temperature = args, self._temperature(args, labels)
        self.loader = held_out_loader(args, labels, preprocessing)

    def _temperature(self, args: Settings, labels: LabelSet) -> float:
        """Return what the student's logits are divided by. Say what is taken for what nothing says."""
        if args.logit_scale is None:
            say(args, "nothing says at which temperature the student learns its labels, so its KL divergence is taken "
                "at that of the held-out ones")  # fmt: skip
            return args.temp
        if labels.temperature is None:
            say(args, f"the labels {labels.url} do not say their temperature; it is taken as 1")
        return args.logit_scale * assumed_temperature(labels)

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
        assert batch.labels is not None
        teacher_BC = batch.labels.dense()
        student_BC = (model(batch.images).float() / self.temperature).log_softmax(1)
        divergence_B = (torch.xlogy(teacher_BC, teacher_BC) - teacher_BC * student_BC).sum(1)
        agrees_B = teacher_BC.argmax(1) == student_BC.argmax(1)
        return torch.stack(
            [(one * batch.mask).double().sum() for one in (divergence_B, agrees_B, batch.mask)]
        )


class HeldOutEmbeddings:
    """The cosine of what the student's projectors give to the teachers' embeddings, on one crop of each image.

    Args:
        args: the flags.
        url: a set of embeddings, at least of the teachers that the student learns from.
        preprocessing: how the student is shown crops.

    Raises:
        UsageError: the set holds labels.
    """

    def __init__(self, args: Settings, url: str, preprocessing: Preprocessing) -> None:
        labels = labels_at(Location(url, parse_store_options(args.store_option)), embeddings=True)
        if not labels.holds_embeddings:
            raise UsageError(
                "--val-softlabels holds labels, and the student learns embeddings", url=labels.url
            )
        self.args, self.url = args, labels.url
        self.widths = {one["name"]: one["dim"] for one in labels.identity.embeddings or []}
        self.loader = held_out_loader(args, labels, preprocessing)

    def __call__(self, model: nn.Module) -> Score:
        """Return the mean cosine over images and teachers, in percent, which decides; and that of each teacher."""
        assert isinstance(model, Distiller)
        self._check(model)
        sums = torch.zeros(len(model.dims) + 1, dtype=torch.float64, device=self.args.device)
        for batch in self.loader:
            sums += self._sums(model, batch)
        *cosines, images = summed(sums)
        of_teacher = [cosine / images for cosine in cosines]
        mean = sum(of_teacher) / len(of_teacher)
        several = zip(model.dims, of_teacher, strict=True) if len(of_teacher) > 1 else ()
        figures = {"cosine": mean, **{f"cosine_{name}": cosine for name, cosine in several}}
        said = "".join(
            f", {name.removeprefix('cosine_')} {value:.4f}" for name, value in list(figures.items())[1:]
        )
        text = f"cosine to the teacher {mean:.4f}{said} on {images:.0f} held-out images"
        return Score(100 * mean, figures, text)

    def _check(self, model: Distiller) -> None:
        if not model.dims:
            raise UsageError("the student has no projector to compare with the held-out set", url=self.url)
        for name, dim in model.dims.items():
            if self.widths.get(name) != dim:
                raise UsageError(f"the held-out set has no embedding {name!r} of {dim} numbers", url=self.url)

    def _sums(self, model: Distiller, batch: Batch) -> Tensor:
        found = model(batch.images)
        rows = [
            F.cosine_similarity(found[name].float(), model.compared(batch.embedding[name]), dim=1)
            for name in model.dims
        ]
        return torch.stack([(one * batch.mask).double().sum() for one in (*rows, batch.mask)])
