"""The names under which the readers of FKD and MEAL V2 look for the label file of an image."""

from __future__ import annotations

from collections.abc import Iterable

from slg_wds.config import ExportConfig
from slg_wds.errors import InteropError, UsageError
from slg_wds.interop.fkd.folder import stem_of
from slg_wds.interop.fkd.layout import COMPONENTS, EXTENSION, Layout
from slg_wds.labelset.labelset import LabelSet


class LabelFileNames:
    """The names under which the readers look for label files: an image's last path components, cut at the first dot.

    Args:
        labels: the label set.
        config: the layout, and the name of the data set's folder.

    Raises:
        UsageError: the layout needs a data set's name and has none, or the name is no folder's.
    """

    def __init__(self, labels: LabelSet, config: ExportConfig) -> None:
        count = COMPONENTS[config.layout]
        self._url = labels.url
        # The reader takes the components from the path of the image: ROOT/DATASET/SPLIT/CLASS/NAME.
        folders = [_dataset(labels) if config.dataset is None else config.dataset, labels.split]
        if config.dataset is not None and config.layout != "mealv2":
            raise UsageError("--dataset goes with --layout mealv2 only")
        if count == 4 and not folders[0]:
            raise UsageError("--layout mealv2 needs --dataset, the name of the folder that holds train")
        if any("/" in folder for folder in folders):
            raise UsageError(f"{'/'.join(folders)!r} is not the name of a data set and of a folder in it")
        self._layout = Layout("", tuple(folders[4 - count :]), count)

    def of(self, path: str) -> str:
        """Return the name of an image's label file, relative to --softlabel_path.

        Raises:
            InteropError: FKD's reader would look for another name, or the file would lie outside the folder.
        """
        given = [*self._layout.folders, *path.split("/")]
        if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in given):
            raise self._refused(f"the label file of {path!r} would lie outside the folder")
        parts = self._layout.parts(path)
        if any("." in part for part in parts[:-1]):
            raise self._refused(
                f"FKD's reader cuts {'/'.join(parts)} at its first dot, so folders cannot have one"
            )
        stem = stem_of("/".join(parts))
        if stem.endswith("/"):
            raise self._refused(f"the image {path!r} has no name before its first dot")
        return stem + EXTENSION

    def check(self, paths: Iterable[str]) -> None:
        """Check that every image has a label file of its own.

        Raises:
            InteropError: two images would share one; both are named. Or an image has no name; see `of`.
        """
        seen: dict[str, str] = {}
        for path in paths:
            other = seen.setdefault(self.of(path), path)
            if other != path:
                raise self._refused(
                    f"{other} and {path} would share the label file {self.of(path)}: "
                    "FKD cuts names at the first dot"
                )

    def _refused(self, message: str) -> InteropError:
        return InteropError(message, url=self._url)


def _dataset(labels: LabelSet) -> str:
    """Return the name of the folder that holds the split's folder, by the path of the labelled images."""
    root = str(labels.description.provenance.get("image_root") or "").rstrip("/")
    folder, _, base = root.rpartition("/")
    return folder.rpartition("/")[2] if base == labels.split else base
