"""Class numbers: from folders to the teacher's classes, and to a subset of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slg_wds.config import SourceConfig, TeacherConfig
from slg_wds.errors import NoTargetsError, UsageError


@dataclass(frozen=True)
class Targets:
    """Which class of the labels each class folder is.

    Attributes:
        of_class: the label class of each folder, None without class folders; an entry is None outside the subset.
        class_names: the folder of each label class ("" for none), None where they say nothing of the labels.
        comparable: whether targets and labels number the same classes, so that agreement means something.
    """

    of_class: list[int | None] | None
    class_names: list[str] | None
    comparable: bool


def teacher_classes(
    config: SourceConfig, classes: Sequence[str] | None, num_classes: int
) -> list[int] | None:
    """The teacher's number of each class folder where that is known: --class-map, WordNet ids, or equal counts.

    Raises UsageError naming a folder that the class map lacks, or class numbers outside the teacher's.
    """
    from slg_wds.images import imagenet_targets, read_class_map

    if classes is None:
        return None
    if config.class_map is not None:
        mapping = read_class_map(config.class_map)
        unknown = [name for name in classes if name not in mapping]
        if unknown:
            raise UsageError(
                f"--class-map {config.class_map} lacks the class folders {', '.join(unknown[:5])}"
            )
        wrong = [name for name in classes if not 0 <= mapping[name] < num_classes]
        if wrong:
            raise UsageError(
                f"--class-map {config.class_map} gives {wrong[0]} the class {mapping[wrong[0]]}, "
                f"outside 0..{num_classes - 1}"
            )
        return [mapping[name] for name in classes]
    known = imagenet_targets(classes) if num_classes == 1000 else None
    if known is not None:
        return known
    return list(range(len(classes))) if len(classes) == num_classes else None


def class_subset(
    config: TeacherConfig, classes: Sequence[str] | None, num_classes: int
) -> tuple[int, ...] | None:
    """The teacher's classes that --class-subset keeps, rising; None for all.

    Raises UsageError (a file that is not class numbers), NoTargetsError (`auto` without known class folders).
    """
    if config.class_subset is None:
        return None
    if config.class_subset == "auto":
        known = teacher_classes(config, classes, num_classes)
        if known is None:
            raise NoTargetsError(
                "--class-subset auto needs class folders whose classes in the teacher are known",
                hint="name them by WordNet ids, or give --class-map or a file of class numbers",
            )
        numbers = known
    else:
        numbers = _read_numbers(config.class_subset)
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"--class-subset {config.class_subset} names a class twice")
    outside = [number for number in numbers if not 0 <= number < num_classes]
    if outside or not numbers:
        raise UsageError(
            f"--class-subset {config.class_subset}: {outside or 'nothing'} is not inside 0..{num_classes - 1}"
        )
    return tuple(sorted(numbers))


def _read_numbers(file: str) -> list[int]:
    try:
        text = Path(file).expanduser().read_text()
        values = json.loads(text) if text.lstrip().startswith("[") else text.split()
        return [int(value) for value in values]
    except (OSError, ValueError) as error:
        raise UsageError(f"--class-subset {file} is not a file of class numbers: {error}") from None


def resolve_targets(
    config: SourceConfig, classes: Sequence[str] | None, num_classes: int, subset: Sequence[int] | None
) -> Targets:
    """Work out the targets of a source with these class folders, for a teacher of so many classes."""
    if classes is None:
        return Targets(None, None, subset is None)
    known = teacher_classes(config, classes, num_classes)
    if known is None:
        return Targets(list(range(len(classes))), list(classes), False)
    if config.class_map is None and num_classes == 1000 and len(classes) < 1000:
        names_of_all = _imagenet_names()  # a part of ImageNet's folders: the others have names too
    else:
        names_of_all = dict(zip(known, classes, strict=True))
    position = {
        number: place for place, number in enumerate(subset if subset is not None else range(num_classes))
    }
    of_class = [position.get(number) for number in known]
    names = [""] * len(position)
    for number, place in position.items():
        names[place] = names_of_all.get(number, "")
    return Targets(list(of_class), names, True)


def _imagenet_names() -> dict[int, str]:
    from timm.data.imagenet_info import ImageNetInfo

    return dict(enumerate(ImageNetInfo().label_names()))  # type: ignore[no-untyped-call]
