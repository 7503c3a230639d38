"""How good the student is after a walk.

    score.py          what a validation is, and what it returns
    images.py         images of a folder as the student sees them; each process takes its part
    class_folders.py  which class of the student the images of val are of
    hard_targets.py   top-1 and top-5 on images with targets
    held_out.py       held-out labels or embeddings: how near the student is to the teacher
    neighbours.py     students of embeddings: k-NN accuracy on images with targets

Enters: the student, images or a held-out set. Leaves: figures, the same in all processes.
"""

from __future__ import annotations

from collections.abc import Sequence

from slg_wds import LabelSet
from slg_wds.errors import NoTargetsError
from slg_wds.images import ImageSource
from slg_wds.images.class_folders import ClassFolders
from slg_wds.teachers import Preprocessing
from slg_wds.training.flags import Settings
from slg_wds.training.processes import say
from slg_wds.training.validation.class_folders import known_folders
from slg_wds.training.validation.hard_targets import HardTargets
from slg_wds.training.validation.held_out import HeldOutEmbeddings, SoftTargets
from slg_wds.training.validation.images import open_val
from slg_wds.training.validation.neighbours import Neighbours
from slg_wds.training.validation.score import Score, Validation

__all__ = [
    "HardTargets",
    "HeldOutEmbeddings",
    "Neighbours",
    "Score",
    "SoftTargets",
    "Validation",
    "known_folders",
]


def open_validations(
    args: Settings,
    labels: Sequence[LabelSet],
    folders: ClassFolders,
    num_classes: int,
    preprocessing: Preprocessing,
) -> list[Validation]:
    """Open the validations that the flags and folders give: IMAGES/val, then --val-softlabels.

    The first of them decides which checkpoint is the best.

    Args:
        args: the flags.
        labels: the sets that the student learns from; none with --evaluate.
        folders: what these, or the checkpoint, say of class folders.
        num_classes: the student's.
        preprocessing: how the student is shown images.
    """
    found: list[Validation] = []
    val = open_val(args)
    if val is not None and any(one.identity.bank_sha256 is not None for one in labels) and not args.class_map:
        say(args, "the labels are over prototypes, not over classes, so IMAGES/val is not used")
        val = None
    if val is not None:
        if args.distills:
            found.append(Neighbours(args, val, preprocessing))
        else:
            found += _hard_targets(args, labels, val, folders, num_classes, preprocessing)
    if args.val_softlabels:
        if args.distills:
            found.append(HeldOutEmbeddings(args, args.val_softlabels, preprocessing))
        else:
            found.append(SoftTargets(args, args.val_softlabels, labels, num_classes, preprocessing))
    return found


def _hard_targets(
    args: Settings,
    labels: Sequence[LabelSet],
    val: ImageSource,
    folders: ClassFolders,
    num_classes: int,
    preprocessing: Preprocessing,
) -> list[Validation]:
    """Return the validation by classes; none where the teacher's classes are not those of the user's own folders.

    Raises:
        NoTargetsError: the sets are of classes, and nothing says which of them the folders of val are.
    """
    try:
        return [HardTargets(args, val, folders, num_classes, preprocessing)]
    except NoTargetsError as error:
        if args.class_map or not labels or not all(map(_numbers_folders, labels)):
            raise
        say(args, f"{error.message}, so IMAGES/val is not used; --class-map says it")
        return []


def _numbers_folders(labels: LabelSet) -> bool:
    """Return whether the targets of a set only number the class folders of its images."""
    return not labels.targets_are_classes and int(labels.plan.targets.max(initial=-1)) >= 0
