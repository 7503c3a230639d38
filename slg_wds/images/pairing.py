"""Images to learn from and images to test on, with the same numbers for the same classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from slg_wds.console import counted, first_few
from slg_wds.errors import NoTargetsError
from slg_wds.files import Spellings
from slg_wds.format.manifest.plan import Plan
from slg_wds.images.classes import folder_numbers, imagenet_targets
from slg_wds.images.order import shuffled
from slg_wds.images.source import ImageSource

ClassNumbers = Sequence[int] | None


def paired_plans(train: ImageSource, test: ImageSource) -> tuple[Plan, Plan]:
    """Plan two sources so that a class has one number in both.

    Of two sources with class folders, that is the number of the folder in `train`. Tars with class numbers keep these,
    and class folders beside such tars have the numbers that their names say.

    Args:
        train: images to learn from.
        test: images to test on.

    Raises:
        NoTargetsError: a source has no targets, `test` has a class that `train` lacks, or nothing says which class
            numbers of the one source the class folders of the other are.
    """
    of_train, of_test = _common_numbers(train, test)
    plans = train.plan(0, 1 << 20, target_of=of_train), test.plan(0, 1 << 20, target_of=of_test)
    for source, plan in zip((train, test), plans, strict=True):
        if not (plan.targets >= 0).any():
            raise NoTargetsError("no image has a target", url=source.url)
    learned, tested = (np.unique(plan.targets[plan.targets >= 0]) for plan in plans)
    if len(strange := np.setdiff1d(tested, learned)):
        raise NoTargetsError(
            f"no image to learn from has the classes {first_few([*map(str, strange)])}", url=test.url
        )
    return plans


def _common_numbers(train: ImageSource, test: ImageSource) -> tuple[ClassNumbers, ClassNumbers]:
    """Return the number of each class folder of both; None for a source that keeps its own numbers."""
    if train.classes is not None and test.classes is not None:
        return None, _numbers_in(train.classes, test)
    return _numbers_beside(test, train), _numbers_beside(train, test)


def _numbers_in(classes: Sequence[str], test: ImageSource) -> list[int]:
    """Return the place of each class folder of `test` among those to learn from."""
    known, spelled = {name: number for number, name in enumerate(classes)}, Spellings(classes)
    found = {name: spelled.find(name) for name in test.classes or ()}
    if strange := [name for name, one in found.items() if one is None]:
        raise NoTargetsError(f"not among the class folders to learn from: {first_few(strange)}", url=test.url)
    return [known[one] for one in found.values() if one is not None]


def _numbers_beside(numbered: ImageSource, source: ImageSource) -> ClassNumbers:
    """Return the class numbers that the names of a source's class folders say, since `numbered` has only numbers."""
    if source.classes is None:
        return None
    numbers = folder_numbers(source.classes) or imagenet_targets(source.classes)
    if numbers is None:
        raise NoTargetsError(
            f"nothing says which class numbers {counted(len(source.classes), 'class folder')} are, and the "
            f"samples of {numbered.url} have class numbers",
            url=source.url,
            hint="name the folders by their class numbers or by WordNet ids",
        )
    if strange := [name for name, one in zip(source.classes, numbers, strict=True) if one is None]:
        raise NoTargetsError(f"no class of ImageNet: {first_few(strange)}", url=source.url)
    return [one for one in numbers if one is not None]


def some_with_targets(plan: Plan, most: int | None) -> Plan:
    """Return a plan whose targets are -1 for all but `most` images, drawn at random, always the same; None for all."""
    there = np.flatnonzero(plan.targets >= 0)
    if most is None or len(there) <= most:
        return plan
    targets, drawn = np.full_like(plan.targets, -1), there[shuffled(len(there), 0)[:most]]
    targets[drawn] = plan.targets[drawn]
    return dataclasses.replace(plan, targets=targets)
