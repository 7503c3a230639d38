"""Which label file belongs to which image of a plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from slg_wds.console import counted, first_few
from slg_wds.errors import InteropError
from slg_wds.format.manifest.plan import Plan
from slg_wds.interop.fkd.folder import LabelFolder, stem_of


@dataclass(frozen=True)
class Matching:
    """How the label files of a folder and the images of a plan go together.

    Attributes:
        usable: names of label files that belong to exactly one image, sorted.
        shared: for each label file that several images would share, by its name, the paths of these images. Nobody
            knows which of them it has labels of.
        unmatched: names of label files that belong to no image, sorted.
    """

    usable: list[str]
    shared: dict[str, list[str]]
    unmatched: list[str]


def match_files(folder: LabelFolder, plan: Plan, split: str, on_error: str) -> Matching:
    """Match the label files of a folder with the images of a plan.

    Args:
        folder: the label files.
        plan: the images.
        split: the folder to prefer where several hold label files of these images.
        on_error: "fail" to refuse files and images without a partner, "skip" to leave them out.

    Raises:
        InteropError: no label file belongs to these images, or with "fail" some have no partner.
    """
    stems = [stem_of(path) for path in plan.paths]
    folder.match(stems, split)
    names = [folder.name(stem) for stem in stems]
    shared = _shared(plan.paths, names)
    unmatched = sorted(folder.files.difference(names))
    if on_error == "fail":
        lacking = sorted(
            path for path, name in zip(plan.paths, names, strict=True) if name not in folder.files
        )
        _refuse(folder, len(names), lacking, shared, unmatched)
    return Matching(sorted(folder.files.intersection(names) - shared.keys()), shared, unmatched)


def _shared(paths: Sequence[str], names: list[str]) -> dict[str, list[str]]:
    if len(set(names)) == len(names):
        return {}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path, name in zip(paths, names, strict=True):
        groups[name].append(path)
    return {name: sorted(group) for name, group in groups.items() if len(group) > 1}


def _refuse(
    folder: LabelFolder, images: int, lacking: list[str], shared: dict[str, list[str]], unmatched: list[str]
) -> None:
    """Raise InteropError for images and label files without a partner of their own, if there are any."""
    problems = []
    if shared:
        name, paths = min(shared.items())
        problems.append(
            f"{sum(map(len, shared.values()))} images share a label file with another, since FKD names it by the end "
            f"of a path, cut at the first dot: {' and '.join(paths[:3])} have {name}"
        )
    if lacking:
        problems.append(
            f"no label file for {len(lacking):,} of {counted(images, 'image')}: {first_few(lacking)}"
        )
    if unmatched:
        problems.append(f"no image for {counted(len(unmatched), 'label file')}: {first_few(unmatched)}")
    if problems:
        raise InteropError(
            "; ".join(problems),
            url=folder.url,
            hint="mend them, or leave such images out with --on-error skip",
        )
