"""How far labels are from the exact ensemble of their teachers, measured on a random sample of crops."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from slg_wds.banks import read_bank
from slg_wds.config import EnsembleConfig, GenerateConfig, Precision
from slg_wds.config.checks import check_bank
from slg_wds.console import counted
from slg_wds.ensembling.parents import KeyedSet, Missing
from slg_wds.ensembling.partners import mixed_views
from slg_wds.errors import ImageError, TeacherOutputError, UsageError
from slg_wds.format.manifest.identity import differences
from slg_wds.format.records.embeddings.by_name import of_crops
from slg_wds.images import LabelledImage
from slg_wds.labels import parse_label_type
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.sources.external import ImageFiles, open_external
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.transforms.drawn import DrawnCrops, Partner

if TYPE_CHECKING:
    import torch

    from slg_wds.format.records.record import Record
    from slg_wds.teachers import Ensemble

CROPS_PER_IMAGE = 8
MOST_PER_IMAGE = 50  # where there are few images; as many as one forward has
MOST_SIDE = 2048  # pixels of a teacher's input: a hostile set could name a size that no memory holds
_PIXELS = ("input_size", "mean", "std", "interpolation")
_TINY = 1e-12  # stands for 0 in a logarithm


@dataclass(frozen=True)
class Fidelity:
    """How near labels are to their teachers.

    Attributes:
        kl: mean KL(exact || labels) in nats, with labels recovered from all that is stored.
        kl_by_type: the same with labels recovered by their label type, where that ignores stored tails; else None.
        label_type: the label type.
        agreement: share of crops, 0..1, for which both have the same most probable class.
        crops: number of crops in the sample.
    """

    kl: float
    kl_by_type: float | None
    label_type: str
    agreement: float
    crops: int

    def __str__(self) -> str:
        by_type = (
            "" if self.kl_by_type is None else f" ({self.kl_by_type:.4f} when read as {self.label_type})"
        )
        return (
            f"measured on {counted(self.crops, 'crop')} against the teachers: KL {self.kl:.4f} nats{by_type}, "
            f"the same top class for {self.agreement:.1%}"
        )


def measure(config: EnsembleConfig, labels: LabelSet, seed: int = 0) -> Fidelity:
    """Run the teachers on a random sample of crops, and compare their distributions with the labels.

    Args:
        config: names the teachers, the images and the number of crops.
        labels: the label set.
        seed: draws the sample.

    Raises:
        UsageError: the teachers are not those of the labels, or no image of the labels is left.
        SlgWdsError: teachers, images or labels cannot be read.
    """
    teacher = load_named_teachers(config, labels)
    tails = labels.identity.tail_classes > 0
    both = tails and parse_label_type(labels.label_type).kind != "shared_tail"
    kls: list[NDArray[np.float64]] = []
    by_type: list[NDArray[np.float64]] = []
    same: list[NDArray[np.bool_]] = []
    for record, exact in exact_rows(config, labels, teacher, np.random.default_rng(seed)):
        read = record.distribution(rule=None if tails else labels.label_type)
        kls.append(_divergence(exact, read))
        if both:
            by_type.append(_divergence(exact, record.distribution(rule=labels.label_type)))
        same.append(exact.argmax(axis=1) == read.argmax(axis=1))
    if not kls:
        raise UsageError("the labels leave out every image of the sample", url=labels.url)
    return Fidelity(
        kl=max(0.0, float(np.concatenate(kls).mean())),  # rounding may make it negative
        kl_by_type=max(0.0, float(np.concatenate(by_type).mean())) if both else None,
        label_type=labels.label_type,
        agreement=float(np.concatenate(same).mean()),
        crops=sum(map(len, kls)),
    )


def _divergence(exact: NDArray[np.float64], read: NDArray[np.float32]) -> NDArray[np.float64]:
    ratio = np.log(np.maximum(exact, _TINY)) - np.log(np.maximum(read.astype(np.float64), _TINY))
    divergence: NDArray[np.float64] = (exact * ratio).sum(axis=1)
    return divergence


def load_named_teachers(config: EnsembleConfig, labels: LabelSet) -> Ensemble:
    """Load the teachers that the options name, with the weights and preprocessing that the labels' identity records.

    Raises:
        UsageError: they are not the teachers of the labels, or the labels do not say their temperature.
    """
    from slg_wds.teachers import load_ensemble
    from slg_wds.teachers.faults import FREE_MEMORY, hint_if_full

    recorded = labels.identity.teachers
    if recorded and labels.temperature is None and not labels.holds_embeddings:
        raise UsageError(
            "the labels do not say their temperature, so they cannot be compared with their teachers",
            url=labels.url,
        )
    asked = len((config.arch or "").split(","))
    if asked != len(recorded):
        raise UsageError(f"-a names {asked} of the labels' {len(recorded)} teachers")
    settings = [{name: teacher.get(name) for name in _PIXELS} for teacher in recorded]
    if max((each["input_size"] or 0 for each in settings), default=0) > MOST_SIDE:
        raise UsageError(
            f"the labels name a teacher whose input has over {MOST_SIDE} pixels a side", url=labels.url
        )
    options = _teacher_config(config, labels)
    _check_device(options)
    with hint_if_full(FREE_MEMORY):
        loaded = load_ensemble(options, lambda _: labels.identity.class_subset, settings=settings)
    for mine, theirs in zip(loaded.describe(), recorded, strict=True):
        found = [line for line in differences(theirs, mine) if not line.startswith(("weight:", "arch:"))]
        if found:
            raise UsageError(
                f"-a does not name the teachers of the labels: {'; '.join(found)}",
                hint="name them in the order in which slg-wds inspect shows them",
            )
    return loaded


def _check_device(options: GenerateConfig) -> None:
    """Raise UsageError where only a GPU can ask the teachers as they were asked for the labels."""
    from slg_wds.teachers import device_of

    if options.precision in ("tf32", "fp16") and device_of(options) == "cpu":
        raise UsageError(
            f"the labels were made at the precision {options.precision}, which takes a GPU, and here is none to use",
            hint="ask the teachers on a machine that has one",
        )


def _teacher_config(config: EnsembleConfig, labels: LabelSet) -> GenerateConfig:
    """Return options with which the named teachers label as they did when the set was made."""
    identity = labels.identity
    return GenerateConfig(
        data=str(config.check_data),
        arch=str(config.arch),
        weights=tuple(float(teacher.get("weight", 1.0)) for teacher in identity.teachers),
        teacher_source=config.teacher_source,
        teacher_path=config.teacher_path,
        temp=float(identity.temperature or 1.0),
        output=_output(labels),
        bank=_own_bank(config, labels),
        bank_temp=identity.temperature if identity.bank_sha256 else None,
        normalize=identity.normalize,
        precision=cast("Precision", identity.precision or "fp32"),
    )


def _output(labels: LabelSet) -> Literal["labels", "embedding", "prototypes"]:
    if labels.holds_embeddings:
        return "embedding"
    return "prototypes" if labels.identity.bank_sha256 else "labels"


def _own_bank(config: EnsembleConfig, labels: LabelSet) -> str | None:
    """Return the file of the bank that the labels were made with; None for labels without one.

    Raises:
        UsageError: it is another one, or none is given.
    """
    wanted = labels.identity.bank_sha256
    check_bank(config, wanted is not None, "labels over prototypes")
    if config.bank is not None and read_bank(config.bank).sha256 != wanted:
        raise UsageError(f"{config.bank} is not the bank of the labels, whose SHA-256 is {wanted}")
    return config.bank


def exact_rows(
    config: EnsembleConfig,
    labels: LabelSet,
    teacher: Ensemble,
    chance: np.random.Generator,
    places: NDArray[np.int64] | None = None,
) -> Iterator[tuple[Record, NDArray[np.float64]]]:
    """Draw random images and a few random crops of each, and run the teachers on these crops.

    Args:
        config: names the images and the number of crops.
        labels: the label set. If it embeds images, those are used.
        teacher: the teachers.
        chance: draws images and crops.
        places: numbers of the planned images to draw from, int64; None for all.

    Yields:
        The image's record with only the drawn crops, and the teachers' distributions of them, float64 [n, C]; of a set
        of embeddings, their embeddings side by side, float64 [n, D].

    Raises:
        ImageChangedError: an image is not the one that was labelled.
        ImageSourceError: an image is not there.
        TeacherOutputError: an answer is not finite.
    """
    number = len(labels) if places is None else len(places)
    each = max(CROPS_PER_IMAGE, -(-config.check_crops // max(1, number)))
    each = min(each, labels.num_crops, MOST_PER_IMAGE)
    images_needed = -(-config.check_crops // each)
    keyed, images = KeyedSet(labels), _Images(config, labels)
    for place in chance.permutation(len(labels) if places is None else places)[:images_needed].tolist():
        record = keyed.read(place)
        if isinstance(record, Missing):
            continue
        pixels = images.decoded(keyed, place, record)
        rows = np.sort(chance.permutation(record.num_crops)[:each])
        part = dataclasses.replace(
            record,
            crops=record.crops[rows],
            flips=record.flips[rows],
            index=record.index[rows],
            value=record.value[rows],
            low_rank=record.low_rank.of(rows) if record.low_rank else None,
            views=None if record.views is None else record.views[rows],
            embeddings=of_crops(record.embeddings, rows),
        )
        exact = _ask(teacher, pixels, *mixed_views(keyed, images.decoded, part))
        if not np.isfinite(exact).all():  # in a mean or a maximum it would be lost, or taken for agreement
            raise TeacherOutputError(f"{teacher.name} gave NaN or infinity for a crop", key=record.key)
        yield part, exact


class _Images:
    """The images of a set: those that it embeds, else those that a config names. These are opened when one is read."""

    def __init__(self, config: EnsembleConfig, labels: LabelSet) -> None:
        self._config, self._labels = config, labels

    def decoded(self, keyed: KeyedSet, number: int, record: Record) -> torch.Tensor:
        """Return the pixels, uint8 [3, H, W], of planned image `number`, which has this record.

        Raises:
            ImageError: the image cannot be decoded, or is not the one that was labelled.
            ImageSourceError, StoreError: it is not there.
        """
        data = keyed.image(number) or bytes(self._files.read(number, record.key))
        try:
            return LabelledImage.of(record).decode(data)
        except ImageError as error:
            raise error.located(url=self._config.check_data) from None

    @cached_property
    def _files(self) -> ImageFiles:
        return open_external(self._labels, self._config.at(str(self._config.check_data)), OpenFiles())


def _ask(
    teacher: Ensemble, pixels: torch.Tensor, crops: DrawnCrops, partners: Mapping[int, Partner]
) -> NDArray[np.float64]:
    import torch

    from slg_wds.teachers.faults import FREE_MEMORY, device_faults, hint_if_full

    batches = []
    for size, interpolation in teacher.inputs:
        memory = torch.empty((len(crops), size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        crops.cut_mixed(pixels, memory, interpolation, partners)
        batches.append(memory)
    with hint_if_full(FREE_MEMORY), device_faults(teacher.device, f"asking {teacher.name} failed"):
        answers = teacher.answers([one.to(teacher.device) for one in batches]).cpu()
    exact: NDArray[np.float64] = answers.numpy().astype(np.float64)
    return exact
