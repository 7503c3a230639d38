"""Which class of the student the images of val are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from slg_wds import LabelSet
from slg_wds.config import EvaluateConfig
from slg_wds.console import counted, first_few
from slg_wds.errors import NoTargetsError
from slg_wds.files import Spellings
from slg_wds.images.classes import folder_numbers, imagenet_targets, wordnet_id
from slg_wds.images.targets import IMAGENET, MOST_CLASSES, resolve_targets
from slg_wds.labelset.class_names import class_folders
from slg_wds.training.flags import Settings
from slg_wds.training.processes import say

TargetOf = Sequence[int | None] | Callable[[int], int | None] | None


@dataclass(frozen=True)
class ClassFolders:
    """What label sets say of class folders. A checkpoint keeps it: a student is validated where no set is.

    Attributes:
        classes: the student's class of each class folder, None for no target; empty if the sets name no classes.
        subset: the teacher's numbers of the student's classes; None for all of the teacher's.
    """

    classes: Mapping[str, int | None] = field(default_factory=dict)
    subset: Sequence[int] | None = None

    @classmethod
    def known(cls, labels: Sequence[LabelSet], checkpoint: Mapping[str, Any] | None) -> ClassFolders:
        """Return what the sets say, or without sets the checkpoint. Of sets that differ the first one counts."""
        if not labels:
            return cls(**((checkpoint or {}).get("class_folders") or {}))
        classes: dict[str, int | None] = {}
        for one in reversed(labels):
            classes.update(class_folders(one))
        subset = labels[0].identity.class_subset
        return cls(classes, None if subset is None else list(subset))

    def kept(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        return asdict(self)

    def targets(self, args: Settings, folders: Sequence[str] | None, num_classes: int) -> TargetOf:
        """Return the student's class of each class of val, as `ImageSource.plan` takes it.

        --class-map decides, then what the sets say. Where they name no classes, folders are numbered as
        `slg-wds evaluate` does it.

        Args:
            args: the flags.
            folders: val's class folders in the order of their numbers; None if its samples have class numbers.
            num_classes: the student's.

        Raises:
            NoTargetsError: it is not known which classes they are.
        """
        if folders is not None and self.classes and not args.class_map:
            return self._named(args, folders, num_classes)
        subset = (
            None if args.class_map else self.subset
        )  # the map has the student's numbers, not the teacher's
        if folders is None and subset is None:
            return None
        config = EvaluateConfig(data=args.data or "", arch=args.arch, class_map=args.class_map)
        # How many classes the teacher of a subset has is not known, so nothing is concluded from it.
        of_all = num_classes if subset is None else MOST_CLASSES
        targets = resolve_targets(config, folders, of_all, subset)
        if not targets.comparable:
            raise self._unknown(args, folders or [])
        if folders is not None and not args.class_map and _in_order(folders, of_all):
            say(args, "nothing says which of the student's classes the class folders of val are, so they are numbered "
                "in the order of their names; --class-map says it")  # fmt: skip
        return targets.of_class

    def _named(self, args: Settings, folders: Sequence[str], num_classes: int) -> Sequence[int | None]:
        """Return the classes of folders by what the sets call them; never by their order, which sets may not have."""
        spelled = Spellings(self.classes)
        found = [spelled.find(name) or spelled.find(wordnet_id(name) or "") for name in folders]
        classes = [None if name is None else self.classes[name] for name in found]
        if not any(found) and num_classes == IMAGENET and self.subset is None:
            classes = imagenet_targets(folders) or classes  # the sets may call them by words
        if all(number is None for number in classes):
            raise self._unknown(args, folders)
        if without := [name for name, number in zip(folders, classes, strict=True) if number is None]:
            say(args, f"{counted(len(without), 'class folder')} of val of no class of the student: "
                f"{first_few(without)}")  # fmt: skip
        return classes

    def _unknown(self, args: Settings, folders: Sequence[str]) -> NoTargetsError:
        return NoTargetsError(
            f"nothing says which of the student's classes {counted(len(folders), 'class folder')} of val "
            f"{'is' if len(folders) == 1 else 'are'}",
            hint="name them as the train folders or by WordNet ids, or give --class-map",
            url=args.data,
        )


def _in_order(folders: Sequence[str], num_classes: int) -> bool:
    """Return whether folders that are as many as classes are numbered by nothing but their order."""
    by_id = num_classes == IMAGENET and imagenet_targets(folders) is not None
    return not by_id and folder_numbers(folders) is None
