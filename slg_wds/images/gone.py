"""A file that is gone, told apart from a disk or bucket that is."""

from __future__ import annotations

from slg_wds.errors import ImageSourceError, StoreError, StoreUnavailableError
from slg_wds.images.tree import Tree

LATER = "see that the disk or bucket is there, then run the same command again: it goes on where it stopped"


class GoneFiles:
    """Which files of a tree are gone. Each folder is listed once, when the first of its files is not found.

    A file that is removed after that listing is taken for unreadable, never the other way round.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._listed: dict[str, frozenset[str]] = {}

    def confirm(self, path: str) -> None:
        """Return where the folder of a file that was not found can be listed and lacks it.

        An empty folder of images may be where a disk was mounted: that all are gone is not believed.

        Raises ImageSourceError, StoreError where the folder cannot be listed, StoreUnavailableError where the whole
        source is empty or the folder lists the file that could not be read.
        """
        folder, _, base = path.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = self._look(folder)
        if base in self._listed[folder]:
            raise StoreUnavailableError(
                "the file is listed and cannot be read", url=self._tree.url_of(path), hint=LATER
            )

    def _look(self, folder: str) -> frozenset[str]:
        try:
            names = self._tree.names(folder)
            empty = not names and self._tree.is_empty()
        except (ImageSourceError, StoreError) as error:
            error.hint = error.hint or LATER
            raise
        if empty:
            raise StoreUnavailableError("everything is gone from here", url=self._tree.url, hint=LATER)
        return names
