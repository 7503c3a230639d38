"""Class numbers of a source -> the teacher's classes, and a subset of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from slg_wds.config import SourceConfig, TeacherConfig
from slg_wds.console import counted, first_few
from slg_wds.errors import ImageSourceError, NoTargetsError, UsageError
from slg_wds.files import Spellings, lines_of, read_text, reason_of
from slg_wds.images.class_folders import ClassFolders
from slg_wds.images.classes import IMAGENET, folder_numbers, imagenet_targets, read_class_map, wordnet_id

MOST_CLASSES = 1 << 24  # that a class number of a sample may be below
UNKNOWN = ClassFolders()


@dataclass(frozen=True)
class Targets:
    """The target of each class of a source: a class number of the labels.

    Attributes:
        of_class: the target of each class number, as `ImageSource.plan` takes it; None: the number itself.
        class_names: name of each label class, "" without one; None if the source's names say nothing about the labels.
        comparable: whether targets and labels number the same classes, so that they can be compared.
        note: a line for the user if the folders' numbers may be unexpected; else "".
    """

    of_class: Sequence[int | None] | Callable[[int], int | None] | None
    class_names: list[str] | None
    comparable: bool
    note: str = ""


def _none(number: int) -> None:
    return None


def teacher_classes(
    config: SourceConfig,
    classes: Sequence[str] | None,
    num_classes: int,
    class_folders: ClassFolders = UNKNOWN,
) -> list[int | None] | None:
    """Find the teacher's class number of each class folder.

    The first rule that applies decides: --class-map, with the next rule or WordNet ids for folders that it does not
    name; what the teacher's checkpoint says; names that are numbers; WordNet ids, for a teacher of 1000 classes; the
    folders' sorted order, if there are as many as classes.

    Args:
        config: has the option --class-map.
        classes: names of the class folders; None if there are none.
        num_classes: number of the teacher's classes.
        class_folders: what the teacher's checkpoint says of class folders.

    Returns:
        The number of each folder, None for no target; None instead of a list if no rule applies.

    Raises:
        UsageError: a class map that lacks a folder without a WordNet id, or gives a number that is no class of the
            teacher.
        ImageSourceError: most folders are named by WordNet ids and some are not.
    """
    if classes is None:
        return None
    if config.class_map is not None:
        return _mapped(config.class_map, classes, num_classes, class_folders)
    if class_folders.known:
        return class_folders.numbers(classes, num_classes)
    numbers = folder_numbers(classes)
    if numbers is not None:
        return list(numbers) if max(numbers) < num_classes else None
    known = imagenet_targets(classes) if num_classes == IMAGENET else None
    if known is not None:
        return known
    return list(range(len(classes))) if len(classes) == num_classes else None


def _mapped(
    file: str, classes: Sequence[str], num_classes: int, class_folders: ClassFolders
) -> list[int | None]:
    mapping = read_class_map(file)
    spelled = Spellings(mapping)
    named = {name: found for name in classes if (found := spelled.find(name)) is not None}
    others = [name for name in classes if name not in named]
    of_others = _unmapped(others, num_classes, class_folders)
    if of_others is None:
        raise UsageError(f"--class-map {file} lacks the class folders {first_few(others)}")
    numbers: dict[str, int | None] = {name: mapping[found] for name, found in named.items()}
    numbers.update(zip(others, of_others, strict=True))
    for name, number in numbers.items():
        if number is not None and number >= num_classes:
            raise UsageError(
                f"--class-map {file} gives {name} the class {number}, outside 0..{num_classes - 1}"
            )
    return [numbers[name] for name in classes]


def _unmapped(
    others: Sequence[str], num_classes: int, class_folders: ClassFolders
) -> Sequence[int | None] | None:
    """Return the classes of folders that a class map does not name; None if nothing else says them."""
    if not others:
        return []
    if class_folders.known:
        return class_folders.numbers(others, num_classes)
    by_id = num_classes == IMAGENET and all(map(wordnet_id, others))
    return imagenet_targets(others) if by_id else None


def class_subset(
    config: TeacherConfig,
    classes: Sequence[str] | None,
    num_classes: int,
    class_folders: ClassFolders = UNKNOWN,
) -> tuple[int, ...] | None:
    """Return the teacher's classes that --class-subset keeps, in rising order; None for all.

    Args:
        config: has the options --class-subset and --class-map.
        classes: names of the class folders; None if there are none.
        num_classes: number of the teacher's classes.
        class_folders: what the teacher's checkpoint says of class folders.

    Raises:
        UsageError: the file is not a list of class numbers, or a number is invalid or given twice.
        NoTargetsError: `auto` without class folders whose class is known.
    """
    if config.class_subset is None:
        return None
    if config.class_subset == "auto":
        known = teacher_classes(config, classes, num_classes, class_folders)
        if known is None:
            raise NoTargetsError(
                "--class-subset auto needs class folders whose classes in the teacher are known",
                hint="name them by WordNet ids, or give --class-map or a file of class numbers",
            )
        numbers = list({number for number in known if number is not None})  # folders may share a class
    else:
        numbers = _read_numbers(config.class_subset)
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"--class-subset {config.class_subset} names a class twice")
    outside = [number for number in numbers if not 0 <= number < num_classes]
    if not numbers:
        raise UsageError(f"--class-subset {config.class_subset} names no class")
    if outside:
        raise UsageError(
            f"--class-subset {config.class_subset}: {first_few([*map(str, outside)])} is not inside "
            f"0..{num_classes - 1}"
        )
    return tuple(sorted(numbers))


def _read_numbers(file: str) -> list[int]:
    try:
        text = read_text(file)
        words = (word for _, line in lines_of(text) for word in line.split())
        return list(map(_whole, json.loads(text) if text.lstrip().startswith("[") else words))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"--class-subset {file} is not a file of class numbers: {reason_of(error)}"
        ) from None


def _whole(value: Any) -> int:
    """Return a whole number that is one, or that digits spell; Python would make one of 2.7, true and 1_0 too."""
    if type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit()):
        return int(value)
    raise ValueError(f"{str(value)[:100]!r} is not a class number")


def classes_of_targets(classes: Sequence[str] | None) -> int:
    """Return how many classes targets may be of, where the teacher has none: ImageNet's, or as many as there are.

    Args:
        classes: names of the source's class folders; None if its samples have class numbers.
    """
    if classes is None:
        return MOST_CLASSES
    if imagenet_targets(classes) is not None:
        return IMAGENET
    return max(folder_numbers(classes) or [len(classes) - 1]) + 1


def resolve_targets(
    config: SourceConfig,
    classes: Sequence[str] | None,
    num_classes: int,
    subset: Sequence[int] | None,
    class_folders: ClassFolders = UNKNOWN,
) -> Targets:
    """Work out the targets of a source.

    Args:
        config: has the options about targets.
        classes: names of the source's class folders; None if its samples have class numbers.
        num_classes: number of the teacher's classes.
        subset: the teacher's classes that labels cover; None for all.
        class_folders: what the teacher's checkpoint says of class folders.

    Raises:
        UsageError, ImageSourceError: as `teacher_classes`.
    """
    if config.no_targets:
        return Targets(_none, None, True)
    if classes is None:
        return Targets(_numbered(num_classes, subset, class_folders), None, True)
    known = teacher_classes(config, classes, num_classes, class_folders)
    if known is None:
        note = (
            f"{counted(len(classes), 'class folder')} for {counted(num_classes, 'class', 'classes')} of the teacher, "
            "so targets only number the folders; --class-map says which classes they are"
        )
        return Targets(range(len(classes)), list(classes), False, note)
    labels = subset if subset is not None else range(num_classes)
    position = {number: place for place, number in enumerate(labels)}
    of_class = [None if number is None else position.get(number) for number in known]
    if config.class_map is None and not class_folders.classes and folder_numbers(classes):
        note = "the class folders are named by numbers, which are taken as the classes"
        return Targets(of_class, None, True, note)
    names = _names_of(config, classes, known, num_classes, class_folders)
    return Targets(of_class, [names.get(number, "") for number in labels], True, _outside(classes, known))


def _numbered(
    num_classes: int, subset: Sequence[int] | None, class_folders: ClassFolders
) -> Callable[[int], int | None]:
    """Return the function from the class numbers of samples in tars to targets.

    The numbers are the teacher's; those of a student's own teacher, where the student knows some of its classes.
    """
    position = None if subset is None else {number: place for place, number in enumerate(subset)}

    def target_of(sample: int) -> int | None:
        number = class_folders.class_of(sample)
        if number is None:
            return None
        if number >= num_classes:
            raise ImageSourceError(
                f"a sample has the class {number}, and the teacher's are 0..{num_classes - 1}",
                hint="--class-map says which of the teacher's classes each number is; --no-targets leaves targets out",
            )
        return number if position is None else position.get(number)

    return target_of


def _outside(classes: Sequence[str], known: Sequence[int | None]) -> str:
    without = [name for name, number in zip(classes, known, strict=True) if number is None]
    if not without:
        return ""
    return (
        f"{len(without)} of {len(classes)} class folders have no class in the teacher: {first_few(without)}"
    )


def _names_of(
    config: SourceConfig,
    classes: Sequence[str],
    known: Sequence[int | None],
    num_classes: int,
    class_folders: ClassFolders,
) -> dict[int, str]:
    """Return the names of the teacher's classes by number: the WordNet id in the folder's name, or that name.

    Those that the teacher's checkpoint has go first, unless a class map says otherwise.
    """
    names = {
        number: wordnet_id(name) or name
        for name, number in zip(classes, known, strict=True)
        if number is not None
    }
    if config.class_map is None and class_folders.known:
        return {**names, **class_folders.names()}
    if config.class_map is None and num_classes == IMAGENET and len(names) < IMAGENET:
        return _imagenet_names()  # some of ImageNet's folders: the other classes have names too
    return names


def _imagenet_names() -> dict[int, str]:
    from timm.data.imagenet_info import ImageNetInfo

    return dict(enumerate(ImageNetInfo().label_names()))  # type: ignore[no-untyped-call]
