"""Names as a page shows them: cut to what fits."""

from __future__ import annotations

from collections.abc import Sequence

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

    def __getitem__(self, number: int) -> str:
        return f"class {number}" if self._names is None else cut(self._names[number])

    def short(self, number: int) -> str:
        """The first of the words that name a class."""
        return self[number].split(",")[0]
