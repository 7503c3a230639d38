"""What can be wrong with a label set, and what was found in one shard."""

from __future__ import annotations

from dataclasses import dataclass, field

from slg_wds.errors import FormatError, SlgWdsError, UnsupportedFeatureError

MISSING, DAMAGED, FOREIGN, UNREADABLE = "missing", "damaged", "foreign", "unreadable"
UNSUPPORTED, INDEX_PART, INFO_FILE, TEACHER, IMAGE = "unsupported", "index", "info", "teacher", "image"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a label set.

    Attributes:
        kind: missing, damaged, foreign (a whole shard, but of another set or number), unreadable (the store failed),
            unsupported (written by a newer version), index (an index part), info (_info.json), teacher (the labels are
            not the teachers'), or image (one that differs from the labelled one, or is gone).
        what: what is wrong, in words.
        shard: name of the shard concerned; None if there is none.
        key: key of the image concerned; None if there is none.
        number: number of the shard concerned; -1 if there is none.
    """

    kind: str
    what: str
    shard: str | None = None
    key: str | None = None
    number: int = -1


@dataclass
class ShardReport:
    """What was found in one shard.

    Attributes:
        number: number of the shard.
        bytes, crops: how many were checked.
        samples: labelled images; -1 if the shard cannot be read, is foreign or is damaged.
        images: embedded images that were decoded.
        compared: images that were read and compared with the labelled ones.
        left_out: planned images for which the shard has no labels.
        made: how the shard was made, see `made_by`; None if it cannot be read or is foreign.
        problems: what is wrong.
    """

    number: int
    bytes: int = 0
    samples: int = -1
    crops: int = 0
    images: int = 0
    compared: int = 0
    left_out: int = 0
    made: dict[str, str] | None = None
    problems: list[Problem] = field(default_factory=list)


def kind_of(error: SlgWdsError) -> str:
    """Return the kind of problem that an error stands for."""
    if isinstance(error, UnsupportedFeatureError):
        return UNSUPPORTED
    return DAMAGED if isinstance(error, FormatError) else UNREADABLE
