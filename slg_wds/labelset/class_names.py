"""Names of a label set's classes as people say them, without torch or timm imported."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slg_wds.labelset.labelset import LabelSet

SYNSETS, LEMMAS = "imagenet_synsets.txt", "imagenet_synset_to_lemma.txt"


def class_names(labels: LabelSet) -> list[str] | None:
    """A name for every class of the labels [num_classes], or None where nothing names any.

    WordNet ids that timm's data knows become their words ("tabby, tabby cat"). A set without class folders whose
    teachers are published models of ImageNet's 1000 classes has their names. What nothing names is "class 7".
    """
    given = named_classes(labels)
    if given is None and _published_for_imagenet(labels):
        given = imagenet_ids()
    if given is None:
        return None
    words = imagenet_words()
    return [words.get(name, name) or f"class {number}" for number, name in enumerate(given)]


def named_classes(labels: LabelSet) -> list[str] | None:
    """The set's own class names, "" for none, where they are of the labels' classes; else None."""
    given = labels.description.class_names
    mean_classes = labels.targets_are_classes and given and len(given) == labels.num_classes
    return given if mean_classes and any(given or ()) else None


def _published_for_imagenet(labels: LabelSet) -> bool:
    sources = {teacher.get("source") for teacher in labels.identity.teachers}
    whole = labels.num_classes == 1000 and labels.identity.class_subset is None
    return (
        whole and labels.description.class_names is None and bool(sources) and sources <= {"timm", "pytorch"}
    )


@functools.cache
def imagenet_ids() -> list[str] | None:
    """The WordNet ids of ImageNet's 1000 classes in their order, None where timm's files are not there."""
    text = _timm_file(SYNSETS)
    return None if text is None else text.split()


@functools.cache
def imagenet_words() -> dict[str, str]:
    """WordNet id -> its words, of all ids that timm knows (about 22,000)."""
    lines = (_timm_file(LEMMAS) or "").splitlines()
    pairs = (line.rstrip().partition("\t") for line in lines)
    return {name: words for name, _, words in pairs if words}


def _timm_file(name: str) -> str | None:
    # Found, never imported: importing timm takes torch and seconds.
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        return None
    try:
        return (Path(found.origin).parent / "data" / "_info" / name).read_text("utf-8")
    except OSError:
        return None
