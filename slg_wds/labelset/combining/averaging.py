"""What label sets must have in common before distributions are averaged or compared, or embeddings joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slg_wds.errors import IdentityMismatchError, UsageError
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.records.embeddings.fields import MAX_EMBEDDINGS
from slg_wds.labelset.labelset import LabelSet

# In this order: a difference in an earlier field explains differences in later ones.
_CLASSES = ("bank_sha256", "num_classes", "class_subset")
_SAME = (*_CLASSES, "temperature")


def check_averaged(sets: Sequence[LabelSet], any_temperature: bool = False) -> None:
    """Raise IdentityMismatchError if the distributions of the sets differ in their classes, bank or temperature.

    Args:
        sets: the sets.
        any_temperature: whether they may differ in their temperature, since all are read at another one.
    """
    for field in _SAME:
        if not (any_temperature and field == "temperature"):
            _check_same(sets, field)


def _check_same(sets: Sequence[LabelSet], field: str) -> None:
    """Raise IdentityMismatchError if the identities of two sets differ in a field."""
    first, *others = _of_known_temperature(sets) or sets[:1] if field == "temperature" else sets
    for other in others:
        mine, theirs = getattr(first.identity, field), getattr(other.identity, field)
        if mine != theirs:
            raise differs(first, other, f"{field}: {mine} != {theirs}")


def _of_known_temperature(sets: Sequence[LabelSet]) -> list[LabelSet]:
    """Return the sets whose teachers' temperature is known. An imported set may not know it."""
    return [labels for labels in sets if labels.temperature is not None]


def common_settings(identities: Sequence[Identity]) -> dict[str, Any]:
    """Return what the identity of a merged set says of the teachers' temperature and precision, by name.

    A value is None if the sets differ in it, as where one of them does not say its own. Only names that the first
    identity has are given.
    """
    first, *others = identities
    return {
        name: first[name] if all(getattr(other, name) == first[name] for other in others) else None
        for name in ("temperature", "precision")
        if name in first
    }


def doubt_of_temperature(sets: Sequence[LabelSet]) -> str | None:
    """Return a warning if the mean is of several sets, one of them of an unknown temperature; else None."""
    known = _of_known_temperature(sets)
    unknown = [labels for labels in sets if lacks_temperature(labels)]
    if not unknown or len(unknown) + len(known) < 2:
        return None
    said = f"the labels {unknown[0].url} do not say their temperature"
    if others := [labels.url for labels in unknown[1:]]:
        said += f", {'' if known else 'and '}neither do those of {' and '.join(others)}"
    if known:
        said += f", and those of {known[0].url} were made at {known[0].temperature:g}"
    which = "both" if len(unknown) + len(known) == 2 else "all"
    return f"{said}; their mean is right only if {which} were made at one temperature"


def lacks_temperature(labels: LabelSet) -> bool:
    """Return whether nothing says the temperature of labels that have one: hard ones are the same at each."""
    return labels.temperature is None and labels.identity.coding != "none" and not labels.holds_embeddings


def assumed_temperature(labels: LabelSet) -> float:
    """Return the temperature of labels, or where they do not say it 1, FKD's default. Whoever takes that, says so."""
    return 1.0 if labels.temperature is None else labels.temperature


def embeddings_side_by_side(sets: Sequence[LabelSet]) -> list[dict[str, Any]]:
    """Return what the identities of several sets say of their embeddings, one after the other; [] of labels.

    Args:
        sets: sets of different teachers' embeddings of the same crops, or of labels.

    Raises:
        UsageError: some hold labels and others embeddings, two have an embedding of one name, or there are too many.
    """
    found: dict[str, dict[str, Any]] = {}
    for labels in sets:
        check_kind(sets[0], labels)
        for one in labels.identity.embeddings or []:
            if one["name"] in found:
                raise UsageError(
                    f"two sets have an embedding {one['name']!r}, and embeddings are joined, not averaged",
                    url=labels.url,
                    hint="give sets of different teachers",
                )
            found[one["name"]] = one
    if len(found) > MAX_EMBEDDINGS:
        raise UsageError(f"{len(found)} embeddings are more than the {MAX_EMBEDDINGS} that a record holds")
    return list(found.values())


def check_kind(first: LabelSet, other: LabelSet, hint: str = "give sets of one kind") -> None:
    """Raise UsageError if one of two sets holds labels and the other one embeddings; `hint` says what to do then."""
    if first.holds_embeddings != other.holds_embeddings:
        raise UsageError(
            f"one of {first.url} and {other.url} holds labels and the other one embeddings", hint=hint
        )


def check_classes(first: LabelSet, other: LabelSet) -> None:
    """Raise UsageError if class numbers differ in meaning: of other classes, or of the prototypes of another bank."""
    for name in _CLASSES:
        a, b = getattr(first.identity, name), getattr(other.identity, name)
        if a != b:
            raise UsageError(
                f"its {name} is {b!r}, that of {first.url} {a!r}",
                url=other.url,
                hint="compare sets over the same classes",
            )


def refuse_weights(weights: Sequence[float] | None, flag: str) -> None:
    """Raise UsageError for weights of sets of embeddings, which are joined."""
    if weights is not None:
        raise UsageError(f"{flag} is for labels: embeddings of several sets are joined, not averaged")


def differs(first: LabelSet, other: LabelSet, what: str, key: str | None = None) -> IdentityMismatchError:
    """Make the error for two sets that differ.

    Args:
        first: a set.
        other: the set that differs from it.
        what: the difference.
        key: the image in which they differ, if it is one.
    """
    return IdentityMismatchError(
        f"the label sets do not match: {what}, in {first.url} and {other.url}", key=key
    )
