"""Asks the teachers of a label set again, about a random sample of its crops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from slg_wds.banks import read_bank
from slg_wds.config import GenerateConfig, Precision
from slg_wds.config.shared import RecheckOptions
from slg_wds.errors import ImageError, TeacherOutputError, UsageError
from slg_wds.format.manifest.identity import differences
from slg_wds.images import LabelledImage
from slg_wds.labelset.combining.joining import take_crops
from slg_wds.labelset.keyed import KeyedSet, Missing
from slg_wds.labelset.labelset import LabelSet
from slg_wds.replay.sources.external import ImageFiles, open_external
from slg_wds.replay.sources.files import OpenFiles
from slg_wds.store.location import Location
from slg_wds.transforms.drawn import DrawnCrops, Partner
from slg_wds.verification.answers.mixed_views import mixed_views

if TYPE_CHECKING:
    import torch

    from slg_wds.format.records.record import Record
    from slg_wds.teachers import Ensemble

CROPS_PER_IMAGE = 8
MOST_PER_IMAGE = 50  # where there are few images; as many as one forward has
MOST_SIDE = 2048  # pixels of a teacher's input: a hostile set could name a size that no memory holds
_PIXELS = ("input_size", "mean", "std", "interpolation")


@dataclass(frozen=True)
class Question:
    """Which teachers are asked about a label set, and what.

    Attributes:
        options: the teachers, and how many crops they are shown.
        images: the images of the set; None if it embeds them.
        bank: the file of the bank with which labels over prototypes were made; None for other labels.
    """

    options: RecheckOptions
    images: Location | None
    bank: str | None = None


def load_named_teachers(question: Question, labels: LabelSet) -> Ensemble:
    """Load the teachers that the question names, with the weights and preprocessing that the labels' identity records.

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
    asked = len((question.options.arch or "").split(","))
    if asked != len(recorded):
        raise UsageError(f"-a names {asked} of the labels' {len(recorded)} teachers")
    settings = [{name: teacher.get(name) for name in _PIXELS} for teacher in recorded]
    if max((each["input_size"] or 0 for each in settings), default=0) > MOST_SIDE:
        raise UsageError(
            f"the labels name a teacher whose input has over {MOST_SIDE} pixels a side", url=labels.url
        )
    options = _teacher_config(question, labels)
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


def _teacher_config(question: Question, labels: LabelSet) -> GenerateConfig:
    """Return options with which the named teachers label as they did when the set was made."""
    identity, options = labels.identity, question.options
    return GenerateConfig(
        data=labels.url,  # nothing is read from it
        arch=str(options.arch),
        weights=tuple(float(teacher.get("weight", 1.0)) for teacher in identity.teachers),
        teacher_source=options.teacher_source,
        teacher_path=options.teacher_path,
        temp=float(identity.temperature or 1.0),
        output=_output(labels),
        bank=_own_bank(question, labels),
        bank_temp=identity.temperature if identity.bank_sha256 else None,
        normalize=identity.normalize,
        precision=cast("Precision", identity.precision or "fp32"),
    )


def _output(labels: LabelSet) -> Literal["labels", "embedding", "prototypes"]:
    if labels.holds_embeddings:
        return "embedding"
    return "prototypes" if labels.identity.bank_sha256 else "labels"


def _own_bank(question: Question, labels: LabelSet) -> str | None:
    """Return the file of the bank that the labels were made with; None for labels without one.

    Raises:
        UsageError: it is another one, none is given, or it has no use.
    """
    wanted, given = labels.identity.bank_sha256, question.bank
    if wanted is None and given is not None:
        raise UsageError("--bank is for labels over prototypes", url=labels.url)
    if wanted is not None and given is None:
        raise UsageError(
            "the labels are over prototypes, so their teacher can be asked only with their bank",
            url=labels.url,
            hint="give it with --bank FILE",
        )
    if given is not None and read_bank(given).sha256 != wanted:
        raise UsageError(f"{given} is not the bank of the labels, whose SHA-256 is {wanted}")
    return given


def exact_rows(
    question: Question,
    labels: LabelSet,
    teacher: Ensemble,
    chance: np.random.Generator,
    places: NDArray[np.int64] | None = None,
) -> Iterator[tuple[Record, NDArray[np.float64]]]:
    """Draw random images and a few random crops of each, and run the teachers on these crops.

    Args:
        question: the images and the number of crops.
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
    wanted, number = question.options.check_crops, len(labels) if places is None else len(places)
    each = max(CROPS_PER_IMAGE, -(-wanted // max(1, number)))
    each = min(each, labels.num_crops, MOST_PER_IMAGE)
    images_needed = -(-wanted // each)
    keyed, images = KeyedSet(labels), _Images(question.images, labels)
    for place in chance.permutation(len(labels) if places is None else places)[:images_needed].tolist():
        record = keyed.read(place)
        if isinstance(record, Missing):
            continue
        pixels = images.decoded(keyed, place, record)
        rows = np.sort(chance.permutation(record.num_crops)[:each])
        part = take_crops(record, rows)
        exact = _ask(teacher, pixels, *mixed_views(keyed, images.decoded, part))
        if not np.isfinite(exact).all():  # in a mean or a maximum it would be lost, or taken for agreement
            raise TeacherOutputError(f"{teacher.name} gave NaN or infinity for a crop", key=record.key)
        yield part, exact


class _Images:
    """The images of a set: those that it embeds, else those elsewhere. These are opened when one is read."""

    def __init__(self, elsewhere: Location | None, labels: LabelSet) -> None:
        self._elsewhere, self._labels = elsewhere, labels

    def decoded(self, keyed: KeyedSet, number: int, record: Record) -> torch.Tensor:
        """Return the pixels, uint8 [3, H, W], of planned image `number`, which has this record.

        Raises:
            ImageError: the image cannot be decoded, or is not the one that was labelled.
            UsageError: the set does not embed its images, and no others are given.
            ImageSourceError, StoreError: it is not there.
        """
        data = keyed.image(number) or bytes(self._files.read(number, record.key))
        try:
            return LabelledImage.of(record).decode(data)
        except ImageError as error:
            at = self._labels.url if self._elsewhere is None else self._elsewhere.url
            raise error.located(url=at) from None

    @cached_property
    def _files(self) -> ImageFiles:
        if self._elsewhere is None:
            raise UsageError("no images are given, and the set does not embed them", url=self._labels.url)
        return open_external(self._labels, self._elsewhere, OpenFiles())


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
