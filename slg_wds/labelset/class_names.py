"""Names of the classes of a label set for people. Imports neither torch nor timm."""

from __future__ import annotations

import functools
import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slg_wds.format.manifest.plan import FOLDER

if TYPE_CHECKING:
    from slg_wds.labelset.labelset import LabelSet

SYNSETS, LEMMAS = "imagenet_synsets.txt", "imagenet_synset_to_lemma.txt"


def class_names(labels: LabelSet) -> list[str] | None:
    """Return a name for every class of the labels.

    WordNet ids that timm's files know become words ("tabby, tabby cat"). If the images have no class folders and all
    teachers are published models with ImageNet's 1000 classes, these classes' names are used.

    Returns:
        Names [num_classes], "class 7" for a class without one; None if no class has a name.
    """
    given = named_classes(labels)
    if given is None and _published_for_imagenet(labels):
        given = imagenet_ids()
    if given is None:
        return None
    words = imagenet_words()
    return [words.get(name, name) or f"class {number}" for number, name in enumerate(given)]


def brief_names(names: Sequence[str]) -> list[str]:
    """Return the names of all classes for where there is little room, each of one class only.

    Of WordNet's words the first is enough, if it is no other class's too, as `crane` is of a bird and of a machine. The
    names of folders stay whole: a comma in one is a part of it.

    Args:
        names: as `class_names` gives them.
    """
    words = set(imagenet_words().values())
    short = [name.partition(",")[0] if name in words else name for name in names]
    shared, alike = Counter(short), Counter(names)
    whole = [f"{name} (class {n})" if alike[name] > 1 else name for n, name in enumerate(names)]
    return [one if shared[one] == 1 else other for one, other in zip(short, whole, strict=True)]


def named_classes(labels: LabelSet) -> list[str] | None:
    """Return the class names in slg.json, "" for none, if they name the labels' classes; else None."""
    given = labels.description.class_names
    mean_classes = labels.targets_are_classes and given and len(given) == labels.num_classes
    return given if mean_classes and any(given or ()) else None


def class_folders(labels: LabelSet) -> dict[str, int | None]:
    """Return the class of each class folder that the labels know, by its name; None for one without a target.

    The class names have one folder of each class. The plan has all folders with images: also several of one class, and
    those without a target.

    Returns:
        Nothing if the folders' names do not say which classes they are.
    """
    named = named_classes(labels)
    if named is None:
        return {}
    found: dict[str, int | None] = {name: number for number, name in enumerate(named) if name}
    if labels.plan.source != FOLDER:
        return found
    for path, target in zip(labels.plan.paths, labels.plan.targets.tolist(), strict=True):
        folder, slash, _ = path.partition("/")
        if slash:
            found[folder] = target if target >= 0 else None
    return found


def _published_for_imagenet(labels: LabelSet) -> bool:
    sources = {teacher.get("source") for teacher in labels.identity.teachers}
    identity = labels.identity
    whole = labels.num_classes == 1000 and identity.class_subset is None and identity.bank_sha256 is None
    return (
        whole and labels.description.class_names is None and bool(sources) and sources <= {"timm", "pytorch"}
    )


@functools.cache
def imagenet_ids() -> list[str] | None:
    """Return the WordNet ids of ImageNet's 1000 classes in order; None if timm's files are missing."""
    text = _timm_file(SYNSETS)
    return None if text is None else text.split()


@functools.cache
def imagenet_words() -> dict[str, str]:
    """Return the words of every WordNet id that timm knows, about 22,000."""
    lines = (_timm_file(LEMMAS) or "").splitlines()
    pairs = (line.rstrip().partition("\t") for line in lines)
    return {name: words for name, _, words in pairs if words}


def _timm_file(name: str) -> str | None:
    # The file is found without importing timm, which would import torch and take seconds.
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        return None
    try:
        return (Path(found.origin).parent / "data" / "_info" / name).read_text("utf-8")
    except OSError:
        return None
