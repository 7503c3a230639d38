"""Partners of mixed views, which records name by their numbers in the plan, for another plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from slg_wds.errors import LabelSetError
from slg_wds.format.records.views import Views

Find = Callable[[str, int], int | None]  # the number of a key in the other plan, which is near this one


def renumbered(views: Views | None, keys: Sequence[str], find: Find, url: str) -> Views | None:
    """Return views whose partners have their numbers in another plan; all else stays.

    Args:
        views: of crops; None for boxes and flips alone.
        keys: of the plan that numbers the partners now.
        find: returns the number of a key in the other plan; None where it is not planned.
        url: of the set with the other plan, for the message.

    Raises:
        LabelSetError: a partner is in one of the plans only.
    """
    if views is None or views.mixing is None:
        return views
    numbers = {}
    for number in views.mixing.partners().tolist():
        key = keys[number] if number < len(keys) else f"number {number}"
        found = find(key, number) if number < len(keys) else None
        if found is None:
            raise LabelSetError(f"the image {key} is mixed into a view, and is not in the plan", url=url)
        numbers[number] = found
    return replace(views, mixing=views.mixing.renumbered(numbers))
