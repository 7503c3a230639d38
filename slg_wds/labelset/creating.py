"""Begin a label set, or join one that was begun before from the same images and options."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slg_wds.console import counted
from slg_wds.errors import IdentityMismatchError, NotALabelSetError, NotFoundError
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.description import (
    TRAILER_FEATURE,
    Description,
    decode_description,
    encode_description,
)
from slg_wds.format.manifest.identity import Identity, digest_of
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.plan_codec import decode_plan, encode_plan
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.objects import DESCRIPTION, PLAN, located
from slg_wds.labelset.opening import labels_in
from slg_wds.labelset.places import refuse_inside_a_set
from slg_wds.labelset.publishing import reopen_set
from slg_wds.masking import masked
from slg_wds.store import Location, Store


def create_labels(
    location: Location,
    plan: Plan,
    identity: Mapping[str, Any],
    provenance: Mapping[str, Any],
    class_names: list[str] | None,
    requires: Sequence[str] = (),
    image_checksums: bool = True,
    targets_are_classes: bool | None = None,
) -> LabelSet:
    """Begin a label set, or join the one that exists if its plan and identity are the same.

    A set that is joined keeps its form: the features and checksums that its slg.json names hold to the end.

    Args:
        location: where the set is, or will be.
        plan: which image is which sample of which shard.
        identity: what decides the labels, as JSON.
        provenance: what is recorded but not compared, as JSON.
        class_names: the names of the labels' classes in order; None if they are not known.
        requires: features, of `description.FEATURES`, that readers must know in addition to those of every new set.
        image_checksums: whether the records will have the checksums of their images.
        targets_are_classes: whether targets number the classes of the labels; None if that is not known.

    Raises:
        NotALabelSetError: the location holds something else.
        UsageError: it lies in the folder of another set.
        IdentityMismatchError: it holds a set with another plan or identity; each difference is named.
        ManifestError: a field of `identity` has the wrong type or range.
        StoreError: the location cannot be written to, or cannot commit atomically.
    """
    checked = Identity.from_json(masked(dict(identity)))
    store = location.open()
    refuse_inside_a_set(store)
    store.check_writable()
    plan_sha256 = _put_plan(store, plan)
    description = Description(
        num_samples=plan.num_samples,
        num_shards=plan.num_shards,
        plan_sha256=plan_sha256,
        identity=checked.to_json(),
        provenance=masked(dict(provenance)),
        class_names=class_names,
        requires=[*requires, TRAILER_FEATURE],
        image_checksums=image_checksums,
        targets_are_classes=targets_are_classes,
    )
    description = _put_description(store, description, checked)
    labels = LabelSet(store, plan, description, digest_of(plan_sha256, description.identity))
    reopen_set(labels)
    return labels


def begun_labels(location: Location, plan: Plan, identity: Mapping[str, Any]) -> LabelSet | None:
    """Return the set that `create_labels` would join; None where it would begin one. Nothing is written.

    Raises:
        NotALabelSetError, UsageError, IdentityMismatchError, ManifestError: as of `create_labels`.
        StoreError: the location cannot be read.
    """
    store = location.open()
    refuse_inside_a_set(store)
    try:
        labels = labels_in(store)
    except NotALabelSetError:
        _refuse_other_content(store)
        return None
    _check_plan(labels.plan, plan, store.url)
    _check_identity(labels.description, Identity.from_json(masked(dict(identity))), store.url)
    return labels


def _put_plan(store: Store, plan: Plan) -> str:
    """Write the plan, or check the one that exists; return the SHA-256 of the file."""
    if store.size(PLAN) is None:
        _refuse_other_content(store)
    data = encode_plan(plan)
    if not store.create(PLAN, data):
        data = store.read(PLAN)
        _check_plan(located(decode_plan, data, store.url_of(PLAN)), plan, store.url)
    return hashlib.sha256(data).hexdigest()


def _put_description(store: Store, description: Description, identity: Identity) -> Description:
    """Write slg.json, or check the identity of the one that exists; return the one that holds."""
    if store.create(DESCRIPTION, encode_description(description)):
        return description
    stored = located(decode_description, store.read(DESCRIPTION, MAX_JSON_BYTES), store.url_of(DESCRIPTION))
    _check_identity(stored, identity, store.url)
    return stored


def planned_paths(location: Location) -> Sequence[str]:
    """Return the image paths that the label set at a location plans.

    Returns:
        The paths below the image folder; none if there is no set, or its images lie in tars.

    Raises:
        ManifestError: the plan is damaged.
        StoreError: the location cannot be read.
    """
    store = location.open()
    try:
        data = store.read(PLAN)
    except NotFoundError:
        return ()
    plan = located(decode_plan, data, store.url_of(PLAN))
    return plan.paths if plan.source == "folder" else ()


def _refuse_other_content(store: Store) -> None:
    other = next((entry.name for entry in store.list()), None)
    if other is not None and store.size(PLAN) is None:  # another worker may just have written the plan
        raise NotALabelSetError(
            f"it holds something other than a label set, for example {other!r}",
            url=store.url,
            hint="choose an empty --save-path",
        )


_ELSE = "choose another --save-path, or give the options that made it"


def _check_plan(stored: Plan, wanted: Plan, url: str) -> None:
    if stored != wanted:
        found = _plan_difference(stored, wanted)
        raise IdentityMismatchError(
            f"the label set there was planned from other images or options: {found}", url=url, hint=_ELSE
        )


def _plan_difference(stored: Plan, wanted: Plan) -> str:
    if len(stored.keys) != len(wanted.keys):
        there, now = set(stored.paths), set(wanted.paths)
        only = [
            f", {min(paths)!r} only {where}"
            for paths, where in ((there - now, "there"), (now - there, "now"))
            if paths
        ]
        return f"{counted(len(stored.keys), 'image')} there, {len(wanted.keys):,} now{''.join(only)}"
    pairs = enumerate(zip(stored.paths, wanted.paths, strict=True))
    moved = next(((number, a, b) for number, (a, b) in pairs if a != b), None)
    if moved:
        return f"image {moved[0]} is {moved[1]!r} there and {moved[2]!r} now (other files, --seed or --list)"
    if not np.array_equal(stored.targets, wanted.targets):
        return "the targets differ (class folders, --class-map or --class-subset)"
    if not np.array_equal(stored.shard_sizes, wanted.shard_sizes):
        return f"shards of {stored.shard_sizes[0]} images there, of {wanted.shard_sizes[0]} now"
    return "the names of keys or shards differ (--keep-extensions or --split)"


def identity_differences(stored: Description, wanted: Mapping[str, Any]) -> list[str]:
    """Return a line for each field in which the identity of a set differs from another one.

    Sets from before images had checksums know only the state dict of a private teacher. What else such a teacher holds
    is then not compared, so that these sets can still be finished and extended.

    Args:
        stored: the description of the set.
        wanted: the other identity.
    """
    known = dict(wanted)
    if not stored.image_checksums and known.get("teachers"):
        known["teachers"] = [
            {name: value for name, value in teacher.items() if name != "hidden_sha256"}
            for teacher in known["teachers"]
        ]
    return Identity.from_json(stored.identity).differences(known)


def _check_identity(stored: Description, wanted: Identity, url: str) -> None:
    found = identity_differences(stored, wanted)
    if found:
        only_crops = len(found) == 1 and found[0].startswith("num_crops:")
        more = only_crops and Identity.from_json(stored.identity).num_crops < wanted.num_crops
        hint = f"to add crops, give --extend {url} and another --save-path" if more else _ELSE
        raise IdentityMismatchError(
            f"the label set there was made with other options: {'; '.join(found)}", url=url, hint=hint
        )
