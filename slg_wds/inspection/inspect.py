"""`slg-wds inspect`: shows how a label set was made, how much of it exists, and its bytes per crop.

It reads the plan, slg.json, _info.json, one listing, and a few index parts and records: no shard as a whole, since sets
may be large and remote.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import numpy as np

from slg_wds.config import InspectConfig
from slg_wds.console import tell_json
from slg_wds.inspection.image import find_image, image_dict
from slg_wds.inspection.makers import find_makers
from slg_wds.inspection.sizes import Sizes, measure
from slg_wds.inspection.state import LISTED, SetState, list_set, read_state
from slg_wds.labelset.class_names import class_names, named_classes
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import Makers
from slg_wds.labelset.opening import glance_at, open_labels
from slg_wds.store import open_store

VERSION = 1  # of the JSON


def inspect(url: str, *, store_options: dict[str, str] | None = None) -> dict[str, Any]:
    """Describe a label set, finished or not, as `slg-wds inspect --json` prints it.

    It reads the plan, slg.json, _info.json, one listing, and a bounded number of index parts and records.

    Args:
        url: the label set: a folder or URL.
        store_options: settings of the object store, by their names.

    Returns:
        Plain values that can be written as JSON.

    Raises:
        NotALabelSetError: no label set is there.
        ManifestError, UnsupportedFeatureError: the set is damaged, or was written by a newer version.
        StoreError: the set cannot be read.
    """
    store = open_store(url, store_options or {})
    with ThreadPoolExecutor(1) as pool:
        # Listing tens of thousands of shards takes as long as reading their plan, so both are done at once.
        listing = pool.submit(list_set, store)
        labels = glance_at(store)
        state = read_state(labels, listing.result())
    return as_dict(labels, state, measure(labels, state), find_makers(labels, state))


def as_dict(labels: LabelSet, state: SetState, sizes: Sizes | None, makers: Makers) -> dict[str, Any]:
    """Return the result of `inspect`, as plain values.

    Args:
        labels: the label set.
        state: how much of it exists.
        sizes: bytes per crop; None if no shard could be read.
        makers: what made its shards.
    """
    description = labels.description
    names = class_names(labels)
    return {
        "version": VERSION,
        "url": labels.url,
        "digest": labels.digest,
        "state": "complete" if state.complete else "unfinished",
        "requires": list(description.requires),
        "identity": description.identity,
        "provenance": description.provenance,
        "makers": makers.as_dict(),
        "class_names": None if names is None else {"named": len(names), "first": names[:3]},
        "class_folders": None if named_classes(labels) is None else len(description.class_names or []),
        "source": labels.plan.source,
        "image_checksums": description.image_checksums,
        "images": _images(labels, state),
        "shards": _shards(labels, state),
        "progress": _progress(labels, state),
        "bytes_per_crop": None if sizes is None else {**sizes.columns, "together": sizes.together},
        "sampled": None if sizes is None else {n: getattr(sizes, n) for n in ("shards", "records", "crops")},
        **({"low_rank": asdict(sizes.low_rank)} if sizes is not None and sizes.low_rank else {}),
        **_low_rank_embeddings(sizes),
        "notes": state.notes,
    }


def _low_rank_embeddings(sizes: Sizes | None) -> dict[str, Any]:
    if sizes is None or not sizes.embeddings:
        return {}
    return {"low_rank_embeddings": {name: asdict(one) for name, one in sizes.embeddings.items()}}


def _images(labels: LabelSet, state: SetState) -> dict[str, Any]:
    samples = state.samples
    if samples < 0 and state.looked_at == len(state.present) and state.listed:
        samples = int(labels.plan.shard_sizes[state.present].sum()) - state.left_out
    return {
        "planned": len(labels),
        "labelled": None if samples < 0 else samples,
        "with_target": int(np.count_nonzero(labels.plan.targets >= 0)),
        "targets_are_classes": labels.targets_are_classes,
        "left_out": state.left_out,
        "left_out_of_shards": state.looked_at,
        "left_out_reasons": state.reasons,
    }


def _shards(labels: LabelSet, state: SetState) -> dict[str, Any]:
    present = set(state.present)
    missing = [number for number in range(labels.num_shards) if number not in present]
    known = state.listed or state.complete
    return {
        "planned": labels.num_shards,
        "asked": state.asked,
        "present": len(present),
        "missing": len(missing) if known else None,
        "missing_names": [labels.plan.shard_names[number] for number in missing[:LISTED]] if known else [],
        "bytes": state.bytes if state.bytes >= 0 else None,
    }


def _progress(labels: LabelSet, state: SetState) -> dict[str, Any] | None:
    """Return times and pace of commits; None if the store cannot list, or no shard exists."""
    pace = state.pace
    if pace is None:
        return None
    mean = len(labels) / max(1, labels.num_shards)
    rate = pace.shards_per_second
    return {
        "first_commit": _iso(pace.first),
        "last_commit": _iso(pace.last),
        "measured_on": pace.measured,
        "shards_per_hour": None if rate is None else rate * 3600,
        "images_per_second": None if rate is None else rate * mean,
        "crops_per_second": None if rate is None else rate * mean * labels.num_crops,
        "seconds_left": 0.0 if state.complete else pace.left,
        "idle": not state.complete and pace.idle(time.time()),
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def main(config: InspectConfig) -> int:
    """Run the command: print tables, or with --json one object. Returns the exit code."""
    config.check()
    if config.key is not None:
        labels = open_labels(config.labels, allow_incomplete=True, store_options=config.store_options)
        found = find_image(labels, config.key)
        if config.json:
            tell_json({"version": VERSION, "url": labels.url, "image": image_dict(found, config.shown_crops)})
        else:
            from slg_wds.inspection.tables import print_image

            print_image(found, config.shown_crops)
        return 0
    summary = inspect(config.labels, store_options=config.store_options)
    if config.json:
        tell_json(summary)
    else:
        from slg_wds.inspection.tables import print_set

        print_set(summary)
    return 0
