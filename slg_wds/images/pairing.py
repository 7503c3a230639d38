"""Images to learn from and images to test on, with the same numbers for the same classes."""

from __future__ import annotations

import dataclasses

import numpy as np

from slg_wds.console import first_few
from slg_wds.errors import NoTargetsError
from slg_wds.format.manifest.plan import Plan
from slg_wds.images.order import shuffled
from slg_wds.images.source import ImageSource


def paired_plans(train: ImageSource, test: ImageSource) -> tuple[Plan, Plan]:
    """Plan two sources so that a class has one number in both: that of its folder in `train`.

    Sources without named classes, such as tars with class numbers, keep their numbers.

    Args:
        train: images to learn from.
        test: images to test on.

    Raises:
        NoTargetsError: a source has no targets, or `test` has a class folder that `train` lacks.
    """
    numbers: list[int] | None = None
    if train.classes is not None and test.classes is not None:
        known = {name: number for number, name in enumerate(train.classes)}
        strange = [name for name in test.classes if name not in known]
        if strange:
            raise NoTargetsError(
                f"not among the class folders to learn from: {first_few(strange)}",
                url=test.url,
            )
        numbers = [known[name] for name in test.classes]
    plans = train.plan(0, 1 << 20), test.plan(0, 1 << 20, target_of=numbers)
    for source, plan in zip((train, test), plans, strict=True):
        if not (plan.targets >= 0).any():
            raise NoTargetsError("no image has a target", url=source.url)
    return plans


def some_with_targets(plan: Plan, most: int | None) -> Plan:
    """Return a plan whose targets are -1 for all but `most` images, drawn at random, always the same; None for all."""
    there = np.flatnonzero(plan.targets >= 0)
    if most is None or len(there) <= most:
        return plan
    targets, drawn = np.full_like(plan.targets, -1), there[shuffled(len(there), 0)[:most]]
    targets[drawn] = plan.targets[drawn]
    return dataclasses.replace(plan, targets=targets)
