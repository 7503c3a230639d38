"""Names as a page shows them: cut to what fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slg_wds.labelset.class_names import brief_names

LONGEST = 200  # characters


def cut(text: str) -> str:
    """Shorten a key or name to LONGEST characters. Most of its end is kept, since that is where file names differ."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 4]}…{text[-LONGEST * 3 // 4 :]}"


class ClassNames:
    """Names of the classes of the labels, shortened.

    Args:
        names: a name for each class; None if nothing names them.
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self._names, self.given = names, names is not None
        self._brief = None if names is None else brief_names(names)

    def __getitem__(self, number: int) -> str:
        return f"class {number}" if self._names is None else cut(self._names[number])

    def short(self, number: int) -> str:
        """Return the name of a class for where there is little room."""
        return self[number] if self._brief is None else cut(self._brief[number])

    def of(self, numbers: Iterable[int]) -> dict[int, list[str]]:
        """Return the short and the whole name of each of these classes, by its number."""
        return {number: [self.short(number), self[number]] for number in sorted(numbers)}
