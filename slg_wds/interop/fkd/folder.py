"""A folder of label files, found by the paths of their images."""

from __future__ import annotations

import contextlib
import hashlib
import re
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
from slg_wds.interop.fkd.layout import EXTENSION, Layout, find_layout
from slg_wds.store import Location

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
    may be the root of either, or hold the class folders itself. `match` finds out which it is; see `layout.Layout`.

    Attributes:
        url: the folder.
        files: the label files that lie where those of the images would, without those of other splits; known after
            `match`.
    """

    def __init__(self, tree: Tree, paths: list[str]) -> None:
        self._tree, self._paths, self._gone = tree, paths, GoneFiles(tree)
        self.url = tree.url
        self._layout = Layout("")
        self.files: frozenset[str] = frozenset()

    def match(self, stems: Iterable[str], split: str | None = None) -> None:
        """Find where the label files of images lie, and set `files`.

        Args:
            stems: the stems of all images.
            split: the name of the folder to prefer where several hold label files of these images.

        Raises:
            InteropError: no folder fits, or several do.
        """
        images = frozenset(stems)
        self._layout = find_layout(self.url, self._paths, images, split)
        self.files = self._layout.files(self._paths, images)

    def name(self, stem: str) -> str:
        """Return the name of the label file of an image: its path below the folder."""
        return self._layout.name(stem)

    def read(self, name: str) -> FkdLabels:
        """Read one label file.

        Raises:
            LabelFileError: the file is no label file, or is gone.
            StoreError: the folder cannot be read.
        """
        try:
            return read_label_file(self._tree.read(name))
        except NotFoundError:
            self._gone.confirm(name)
            raise self.located(LabelFileError("it is gone from its folder"), name) from None
        except LabelFileError as error:
            raise self.located(error, name) from None

    def located(self, error: SlgWdsError, name: str) -> SlgWdsError:
        """Add the place of a label file to an error, for `raise folder.located(...)`."""
        return error.located(url=self.url, key=name)

    def digest(self, check: Callable[[str, bytes], None] | None = None) -> str:
        """Return a digest that differs for other labels of the same images, hex.

        It is the SHA-256 of the names of all matched files and of the content of at most 64 of them, evenly chosen, so
        that millions of files need not be read twice.

        Args:
            check: raises LabelFileError for a file that is of no use, by its name and bytes. Such a file can then be
                mended before its bytes are part of the digest. A mended file that is none of the 64 does not change it.

        Raises:
            LabelFileError: one of the files is of no use.
        """
        named = sorted((self._layout.inner(name), name) for name in self.files)
        summed = hashlib.sha256("\n".join(inner for inner, _ in named).encode("utf-8", "surrogateescape"))
        for _, name in named[:: max(1, -(-len(named) // SAMPLED))]:
            data = self._tree.read(name)
            summed.update(hashlib.sha256(data).digest())
            try:
                if check is not None:
                    check(name, data)
            except LabelFileError as error:
                error.hint = error.hint or MEND
                raise self.located(error, name) from None
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
