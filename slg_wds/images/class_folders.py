"""Which of a student's classes class folders are, as the checkpoints of `slg-wds train` keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from slg_wds.files import Spellings
from slg_wds.images.classes import IMAGENET, folder_numbers, imagenet_targets, wordnet_id


@dataclass(frozen=True)
class ClassFolders:
    """What label sets say of class folders. It goes with the student: later no set may be there to ask.

    Attributes:
        classes: the student's class of each class folder, None for no target; empty if the sets name no classes.
        subset: the teacher's numbers of the student's classes; None for all of the teacher's.
    """

    classes: Mapping[str, int | None] = field(default_factory=dict)
    subset: Sequence[int] | None = None

    @classmethod
    def of(cls, kept: object) -> ClassFolders:
        """Return what a checkpoint keeps. A file of another program may have anything in its place: that says nothing.

        Args:
            kept: what `kept` returned, or anything else.
        """
        found = kept if isinstance(kept, Mapping) else {}
        classes, subset = found.get("classes"), found.get("subset")
        if not isinstance(classes, Mapping) or not isinstance(subset, list | None):
            return cls()
        numbers = [*(number for number in classes.values() if number is not None), *(subset or ())]
        ours = all(isinstance(name, str) for name in classes) and all(type(one) is int for one in numbers)
        return cls(dict(classes), subset) if ours else cls()

    def kept(self) -> dict[str, Any]:
        """Return it as a checkpoint keeps it."""
        return asdict(self)

    @property
    def known(self) -> bool:
        """Whether it says anything."""
        return bool(self.classes) or self.subset is not None

    def numbers(self, folders: Sequence[str], num_classes: int) -> list[int | None] | None:
        """Return the student's class of each class folder, by what the sets call them.

        Folders are never numbered by their order, which the sets may not have.

        Args:
            folders: names of class folders.
            num_classes: the student's.

        Returns:
            The class of each folder, None for no target; None instead of a list if no folder has a class.
        """
        if not self.classes:  # the folders that the sets were made of were named by numbers
            named = folder_numbers(folders)
            return None if named is None else list(map(self.class_of, named))
        spelled = Spellings(self.classes)
        found = [spelled.find(name) or spelled.find(wordnet_id(name) or "") for name in folders]
        numbers = [None if name is None else self.classes[name] for name in found]
        if not any(found) and num_classes == IMAGENET and self.subset is None:
            numbers = imagenet_targets(folders) or numbers  # the sets may call them by words
        return numbers if any(number is not None for number in numbers) else None

    def class_of(self, number: int) -> int | None:
        """Return the student's class of a class number of the teacher; None if it is none of the student's."""
        if self.subset is None:
            return number
        return self.subset.index(number) if number in self.subset else None

    def names(self) -> dict[int, str]:
        """Return the name of each class, as the sets call it."""
        names: dict[int, str] = {}
        for name, number in self.classes.items():
            if number is not None:
                names.setdefault(number, name)
        return names
