"""Where commands may write: nothing but a label set itself writes below its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from slg_wds.errors import UsageError
from slg_wds.labelset.objects import DESCRIPTION, PLAN
from slg_wds.store import Store
from slg_wds.store.urls import path_of, scheme_of


def output_path(given: str) -> Path:
    """Return the path of a file or folder that a command writes on this machine, as the user named it.

    Raises:
        UsageError: it is empty, lies in the folder of a label set, or is a URL of remote storage: as a path that would
            only make a folder `s3:`.
    """
    if scheme_of(given) != "file":
        raise UsageError(
            "this is written to a folder of this machine, not to a URL", url=given, hint="give a path"
        )
    path = path_of(given) if given.lower().startswith("file://") else Path(given).expanduser()
    place = Path(os.path.realpath(path))
    _refuse_in_a_set((place, *place.parents), given)
    return path


def refuse_inside_a_set(store: Store) -> None:
    """Raise UsageError where a new label set would lie in the folder of another one."""
    if not store.is_local:
        return
    place = Path(os.path.realpath(store.url))
    if not (place / PLAN).exists():  # a set that was begun there before may be finished
        _refuse_in_a_set(place.parents, store.url)


def _refuse_in_a_set(places: Sequence[Path], given: str) -> None:
    for place in places:
        if all(os.path.lexists(place / name) for name in (PLAN, DESCRIPTION)):
            raise UsageError(
                f"it lies in the folder of the label set {place}, which belongs to that set alone",
                url=given,
                hint="choose another place",
            )
