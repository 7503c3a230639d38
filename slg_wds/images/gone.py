"""Tell a file that is gone from a disk or bucket that is gone."""

from __future__ import annotations

import os

from slg_wds.errors import ImageSourceError, StoreError, StoreUnavailableError
from slg_wds.images.tree import Tree

LINK = (
    "see that its disk is there, or mend the link, then run the same command again; or remove the link: "
    "--on-error skip leaves out an image that is gone"
)
LATER = "see that the disk or bucket is there, then run the same command again: it goes on where it stopped"


class GoneFiles:
    """Finds out whether files of a tree are gone. Lists each folder once, when the first of its files is not found.

    A file that is removed after that listing counts as unreadable. A file that is there never counts as gone.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._listed: dict[str, frozenset[str]] = {}

    def confirm(self, path: str) -> None:
        """Do nothing if a file that was not found is really gone: its folder can be listed and does not have it.

        An empty source does not count as all images gone: it may be the mount point of a disk that is not mounted.

        Raises:
            ImageSourceError, StoreError: the folder cannot be listed.
            StoreUnavailableError: the source is empty, or the folder lists the file that could not be read.
        """
        folder, _, base = path.rpartition("/")
        if folder not in self._listed:
            self._listed[folder] = self._look(folder)
        if base in self._listed[folder]:
            place = self._tree.url_of(path)
            if os.path.islink(place):  # noqa: PTH114 (the place may be a URL)
                what = f"the file is a link to {os.readlink(place)}, where nothing is"  # noqa: PTH115
                raise StoreUnavailableError(what, url=place, hint=LINK)
            raise StoreUnavailableError("the file is listed and cannot be read", url=place, hint=LATER)

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
