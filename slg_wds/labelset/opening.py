"""Open a label set that exists, for reading."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePath

from slg_wds.errors import IncompleteSetError, ManifestError, NotALabelSetError, NotFoundError
from slg_wds.format.canonical import MAX_JSON_BYTES
from slg_wds.format.manifest.description import decode_description
from slg_wds.format.manifest.identity import Identity, digest_of
from slg_wds.format.manifest.plan_codec import decode_plan
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.objects import DESCRIPTION, PLAN, located
from slg_wds.store import NO_OPTIONS, Location, Store

MANY_IMAGES = 1 << 22  # above this it takes over half a second to unpack and check the names of the images


def open_labels(
    url: str | os.PathLike[str],
    *,
    allow_incomplete: bool = False,
    store_options: Mapping[str, str] = NO_OPTIONS,
) -> LabelSet:
    """Open the label set at a URL for reading.

    Args:
        url: a folder, or a URL such as s3://bucket/set.
        allow_incomplete: accept a set that lacks shards; iterating then gives the shards that exist when it starts.
        store_options: options of the object store, such as its region.

    Raises:
        NotALabelSetError: there is no label set at the URL.
        IncompleteSetError: the set lacks shards, and `allow_incomplete` is False.
        ManifestError: plan or slg.json is damaged. UnsupportedFeatureError: a newer slg-wds made the set.
        StoreError: the store cannot be read.
    """
    try:
        location = Location(os.fspath(url), store_options)
        return labels_at(location, allow_incomplete=allow_incomplete, embeddings=True)
    except IncompleteSetError as error:
        error.hint = f"{error.hint}, or pass allow_incomplete=True"
        raise


def labels_at(location: Location, *, allow_incomplete: bool = False, embeddings: bool = False) -> LabelSet:
    """Open the label set at a location, as `open_labels` does at a URL.

    Args:
        location: where it is.
        allow_incomplete: as of `open_labels`.
        embeddings: accept a set of embeddings. Most commands need labels, so the default is to refuse it.

    Raises:
        LabelSetError: the set holds embeddings, and `embeddings` is False. And as `open_labels`.
    """
    labels = dataclasses.replace(labels_in(location.open()), allow_incomplete=allow_incomplete)
    if not embeddings:
        labels.refuse_embeddings()
    if not allow_incomplete and not labels.finished():
        labels.permitted_missing()
    return labels


def glance_at(store: Store) -> LabelSet:
    """Open a set, complete or not, to describe it: names of more than MANY_IMAGES images are read when first used."""
    return dataclasses.replace(labels_in(store, all_names=False), allow_incomplete=True)


def labels_in(store: Store, all_names: bool = True) -> LabelSet:
    """Read and check the plan and slg.json of the set in a store.

    Args:
        store: the store.
        all_names: read the names of all images now, however many there are.
    """
    try:
        plan_bytes = store.read(PLAN)
        description_bytes = store.read(DESCRIPTION, MAX_JSON_BYTES)
    except NotFoundError as error:
        raise NotALabelSetError(
            f"there is no label set here: {_lacking(store, error)}", url=store.url, hint=_instead(store)
        ) from None
    description = located(decode_description, description_bytes, store.url_of(DESCRIPTION))
    plan_sha256 = hashlib.sha256(plan_bytes).hexdigest()
    if plan_sha256 != description.plan_sha256:
        raise ManifestError(
            f"the plan is not the one that {DESCRIPTION} was written with", url=store.url_of(PLAN)
        )
    located(Identity.from_json, description.identity, store.url_of(DESCRIPTION))
    names_later = not all_names and description.num_samples > MANY_IMAGES
    decode = functools.partial(decode_plan, names_later=names_later)
    plan = located(decode, plan_bytes, store.url_of(PLAN))
    if (plan.num_samples, plan.num_shards) != (description.num_samples, description.num_shards):
        raise ManifestError(
            "its numbers of images and shards are not the plan's", url=store.url_of(DESCRIPTION)
        )
    return LabelSet(store, plan, description, digest_of(plan_sha256, description.identity))


def _lacking(store: Store, error: NotFoundError) -> str:
    """Say why a place is no label set.

    Args:
        store: the place.
        error: the error of the first file that is missing, quoted unless both are missing from a folder.
    """
    folder = Path(store.url)
    if not store.is_local or any(os.path.lexists(folder / name) for name in (PLAN, DESCRIPTION)):
        return f"{PurePath(error.url or store.url).name}: {error.message}"
    if folder.is_dir():
        return f"the folder has no files {PLAN} and {DESCRIPTION}"
    return "it is a file, not a folder" if folder.exists() else "no such folder"


def _instead(store: Store) -> str:
    """Return what to do at a place that holds no label set, by what it holds."""
    from slg_wds.labelset.foreign import holds_label_files

    if store.is_local and holds_label_files(Path(store.url)):
        return "these are label files of FKD: slg-wds import FOLDER --images IMAGES --save-path URL makes a set of them"
    return "check the path"
