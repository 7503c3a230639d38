"""A folder of label files, found by the paths of their images."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from slg_wds.errors import (
    IdentityMismatchError,
    InteropError,
    LabelFileError,
    NoImagesError,
    NotFoundError,
    SlgWdsError,
)
from slg_wds.images.gone import GoneFiles
from slg_wds.images.tree import Tree, open_tree
from slg_wds.interop.fkd.files import FkdLabels, read_label_file
from slg_wds.store import Location

EXTENSION = ".tar"
SAMPLED = 64  # files whose content goes into a folder's digest
MEND = "mend it, or leave such files out with --on-error skip"
_ESCAPE = re.compile(r"%([0-9A-F]{2})")


def stem_of(path: str) -> str:
    """Return an image's path with its name cut at the first dot. The original names label files so."""
    folder, slash, base = path.rpartition("/")
    return folder + slash + base.partition(".")[0]


def stem_of_key(key: str) -> str:
    """Return the stem of an image by its key."""
    return stem_of(_ESCAPE.sub(lambda found: chr(int(found[1], 16)), key))


class LabelFolder:
    """The label files below a folder.

    The original's generator writes DATASET/train/CLASS/NAME.tar, and its student reads train/CLASS/NAME.tar. The folder
    may be the root of either, or hold the class folders itself. `match` finds out which it is.

    Attributes:
        url: the folder.
        prefix: the path below the folder that the images' paths continue; known after `match`.
        stems: the paths of the label files below that, without extension; known after `match`.
    """

    def __init__(self, tree: Tree, paths: list[str]) -> None:
        self._tree, self._paths, self._gone = tree, paths, GoneFiles(tree)
        self.url = tree.url
        self.prefix = ""
        self.stems: frozenset[str] = frozenset()

    def match(self, stems: Iterable[str], split: str | None = None) -> None:
        """Find the folder that the images' paths are relative to, and set `prefix` and `stems`.

        Args:
            stems: the stems of all images.
            split: the name of the folder to prefer where several hold label files of these images.

        Raises:
            InteropError: no folder fits, or several do.
        """
        asked = set(stems)
        prefixes: Counter[str] = Counter()
        for path in self._paths:
            stem, place = path[: -len(EXTENSION)], 0
            while place >= 0:
                if stem[place:] in asked:
                    prefixes[stem[:place]] += 1
                    break
                place = stem.find("/", place) + 1 or -1
        found = sorted(prefixes)
        if split is not None and len(found) > 1:
            found = [prefix for prefix in found if f"/{prefix}".endswith(f"/{split}/")] or found
        if not found:
            raise InteropError(
                f"none of its {len(self._paths)} label files is one of the images', such as {min(asked)}{EXTENSION}",
                url=self.url,
                hint=f"it holds files such as {self._paths[0]}",
            )
        if len(found) > 1:
            raise InteropError(
                f"it has label files of these images in several folders: {', '.join(found[:5])}",
                url=self.url,
                hint="give one of these folders",
            )
        self.prefix = found[0]
        start = len(self.prefix)
        self.stems = frozenset(
            path[start : -len(EXTENSION)] for path in self._paths if path.startswith(self.prefix)
        )

    def name(self, stem: str) -> str:
        """Return the path of the label file with a stem, relative to the folder."""
        return f"{self.prefix}{stem}{EXTENSION}"

    def read(self, stem: str) -> FkdLabels:
        """Read one label file.

        Raises:
            LabelFileError: the file is no label file, or is gone.
            StoreError: the folder cannot be read.
        """
        try:
            return read_label_file(self._tree.read(self.name(stem)))
        except NotFoundError:
            self._gone.confirm(self.name(stem))
            raise self.located(LabelFileError("it is gone from its folder"), stem) from None
        except LabelFileError as error:
            raise self.located(error, stem) from None

    def located(self, error: SlgWdsError, stem: str) -> SlgWdsError:
        """Add the place of a label file to an error, for `raise folder.located(...)`."""
        return error.located(url=self.url, key=self.name(stem))

    def digest(self, check: Callable[[str, bytes], None] | None = None) -> str:
        """Return a digest that differs for other labels of the same images, hex.

        It is the SHA-256 of the names of all matched files and of the content of at most 64 of them, evenly chosen, so
        that millions of files need not be read twice.

        Args:
            check: raises LabelFileError for a file that is of no use, by its stem and bytes. Such a file can then be
                mended before its bytes are part of the digest. A mended file that is none of the 64 does not change it.

        Raises:
            LabelFileError: one of the files is of no use.
        """
        stems = sorted(self.stems)
        summed = hashlib.sha256("\n".join(stems).encode("utf-8", "surrogateescape"))
        for stem in stems[:: max(1, -(-len(stems) // SAMPLED))]:
            data = self._tree.read(self.name(stem))
            summed.update(hashlib.sha256(data).digest())
            try:
                if check is not None:
                    check(stem, data)
            except LabelFileError as error:
                error.hint = error.hint or MEND
                raise self.located(error, stem) from None
        return summed.hexdigest()


def open_label_folder(location: Location) -> LabelFolder:
    """List the label files of a folder on disk or in object storage. Raise InteropError if there are none."""
    try:
        tree = open_tree(location)
    except NoImagesError:
        raise InteropError("no such folder of label files", url=location.url) from None
    paths = sorted(path for path in tree.walk() if path.endswith(EXTENSION))
    if not paths:
        raise InteropError(f"it has no label files (*{EXTENSION})", url=location.url)
    return LabelFolder(tree, paths)


@contextlib.contextmanager
def other_files_named(difference: str) -> Iterator[None]:
    """Say it in words where a set was begun with other label files.

    Args:
        difference: how the message of an error begins to tell two digests of label files apart.

    Raises:
        IdentityMismatchError: it was.
    """
    try:
        yield
    except IdentityMismatchError as error:
        if difference not in error.message:
            raise
        raise IdentityMismatchError(
            "the set there was begun with other label files",
            url=error.url,
            hint="choose another --save-path, or remove that set and run the command again; "
            "do that too where label files that it left out were mended or added since",
        ) from None
