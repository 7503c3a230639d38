"""How far a merged set is from the exact ensemble of its teachers, measured on a random sample of crops."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slg_wds.config import EnsembleConfig, GenerateConfig
from slg_wds.crops import cut
from slg_wds.ensembling.parents import KeyedSet, Missing
from slg_wds.errors import ImageSourceError, UsageError
from slg_wds.format.manifest import differences
from slg_wds.images import decode, open_source
from slg_wds.labelset import LabelSet

if TYPE_CHECKING:
    import torch

    from slg_wds.format.record import Record
    from slg_wds.teachers import Ensemble

CROPS_PER_IMAGE = 8
_TINY = 1e-12  # for the logarithm of a class that the labels give nothing


@dataclass(frozen=True)
class Fidelity:
    """kl: mean KL(exact || labels) in nats. agreement: share of crops of the same top class. crops: how many."""

    kl: float
    agreement: float
    crops: int

    def __str__(self) -> str:
        return (
            f"measured on {self.crops} crops against the teachers: KL {self.kl:.4f} nats, "
            f"the same top class for {self.agreement:.1%}"
        )


def measure(config: EnsembleConfig, labels: LabelSet, seed: int = 0) -> Fidelity:
    """Ask the teachers of the command line for a sample of crops and compare. Raises SlgWdsError."""
    teacher = load_told(config, labels)
    kls: list[NDArray[np.float64]] = []
    same: list[NDArray[np.bool_]] = []
    for record, exact in exact_rows(config, labels, teacher, np.random.default_rng(seed)):
        rule = None if labels.identity["tail_classes"] else labels.label_type
        read = record.distribution(rule=rule).astype(np.float64)
        ratio = np.log(np.maximum(exact, _TINY)) - np.log(np.maximum(read, _TINY))
        kls.append((exact * ratio).sum(axis=1))
        same.append(exact.argmax(axis=1) == read.argmax(axis=1))
    return Fidelity(float(np.concatenate(kls).mean()), float(np.concatenate(same).mean()), sum(map(len, kls)))


def load_told(config: EnsembleConfig, labels: LabelSet) -> Ensemble:
    """The teachers that are named, weighted as slg.json says; that it says no other teachers is checked."""
    from slg_wds.teachers import load_ensemble

    told = list(labels.identity["teachers"])
    asked = len((config.arch or "").split(","))
    if asked != len(told):
        raise UsageError(f"-a names {asked} teachers, and the labels are of {len(told)}")
    teacher_config = GenerateConfig(
        data=str(config.check_data),
        arch=str(config.arch),
        weights=tuple(float(teacher["weight"]) for teacher in told),
        teacher_source=config.teacher_source,
        teacher_path=config.teacher_path,
        temp=float(labels.identity.get("temperature") or 1.0),
        precision=labels.identity.get("precision") or "fp32",
    )
    loaded = load_ensemble(teacher_config, lambda num_classes: labels.identity.get("class_subset"))
    for mine, theirs in zip(loaded.describe(), told, strict=True):
        found = [line for line in differences(theirs, mine) if not line.startswith(("weight:", "arch:"))]
        if found:
            raise UsageError(f"-a does not name the teachers of the labels: {'; '.join(found)}")
    return loaded


def exact_rows(
    config: EnsembleConfig,
    labels: LabelSet,
    teacher: Ensemble,
    chance: np.random.Generator,
    places: NDArray[np.int64] | None = None,
) -> Iterator[tuple[Record, NDArray[np.float64]]]:
    """Records of a few random crops each, and the teachers' own distributions of them, float64 [n, C].

    places: the planned images to choose from, by number (default: all). Their pixels are the set's own where it
    embeds them, else those of the config's images.
    """
    each = min(CROPS_PER_IMAGE, labels.num_crops)
    wanted = -(-config.check_crops // each)
    keyed, images = KeyedSet(labels), _Images(config)
    for place in chance.permutation(len(labels) if places is None else places)[:wanted].tolist():
        record = keyed.read(place)
        if isinstance(record, Missing):
            continue
        pixels = decode(keyed.image(place) or images.read(record.key), path=record.path)
        if tuple(pixels.shape[1:]) != record.size:
            raise ImageSourceError(
                "an image is not the one that was labelled", url=config.check_data, key=record.key
            )
        rows = np.sort(chance.permutation(record.num_crops)[:each])
        part = dataclasses.replace(
            record,
            crops=record.crops[rows],
            flips=record.flips[rows],
            index=record.index[rows],
            value=record.value[rows],
        )
        yield part, _ask(teacher, pixels, part)


class _Images:
    """The images that a config names, by key; listed when the first is asked for."""

    def __init__(self, config: EnsembleConfig) -> None:
        self._config = config
        self._numbers: dict[str, int] = {}

    def read(self, key: str) -> bytes:
        """The bytes of an image. Raises ImageSourceError where there is none of that key."""
        if not self._numbers:
            options = self._config.store_options
            self._source = open_source(str(self._config.check_data), store_options=options)
            self._plan = self._source.plan(0, 1 << 20)
            self._numbers = {name: number for number, name in enumerate(self._plan.keys)}
        number = self._numbers.get(key)
        if number is None:
            raise ImageSourceError("an image of the labels is not there", url=self._source.url, key=key)
        shard = int(np.searchsorted(np.cumsum(self._plan.shard_sizes), number, "right"))
        return self._source.reader(self._plan, shard)(number)


def _ask(teacher: Ensemble, pixels: torch.Tensor, record: Record) -> NDArray[np.float64]:
    import torch

    batches = []
    for size, interpolation in teacher.inputs:
        memory = torch.empty((record.num_crops, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        cut(pixels, record.crops, record.flips, memory, interpolation)
        batches.append(memory.to(teacher.device))
    exact: NDArray[np.float64] = teacher.probabilities(batches).cpu().numpy().astype(np.float64)
    return exact
