"""slg.json, the description of a label set <-> bytes: how the labels are made, and what a reader must know."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from slg_wds.errors import UnsupportedFeatureError
from slg_wds.format.canonical import check_version, pretty_json, seal, strings, typed, unseal
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.records.embeddings.fields import EMBEDDINGS
from slg_wds.format.records.embeddings.low_rank import LOW_RANK_EMBEDDINGS
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.shards.names import OLD_TRAILER, TRAILER

VERSION = 1

# The features that `requires` of slg.json may name. What version 1 had from its beginning has no name.
EXTENDS = "extends"  # the set holds only the crops that its base lacks
TRAILER_FEATURE = "trailer"  # the last member of each shard is named TRAILER, not OLD_TRAILER
VIEWS = "views"  # records say what else was done to the pixels of the crops
MIXING = "mixing"  # records say which second views were mixed into the views of the crops
# LOW_RANK, one more, says that the records are low-rank, EMBEDDINGS that they hold embeddings and no labels,
# LOW_RANK_EMBEDDINGS that some of these are low-rank.
FEATURES = frozenset({EXTENDS, TRAILER_FEATURE, VIEWS, MIXING, LOW_RANK, EMBEDDINGS, LOW_RANK_EMBEDDINGS})


@dataclass(frozen=True)
class Description:
    """The content of slg.json.

    Attributes:
        num_samples: images that are planned.
        num_shards: shards that are planned.
        plan_sha256: SHA-256 of the file `plan`, hex.
        identity: what decides the labels, as stored. Every later run compares it, and the set's digest covers it.
        provenance: what is recorded but never compared, such as software versions.
        class_names: names of the classes, or of the class folders where these are not the labels' classes.
        requires: the features that a reader must know.
        image_checksums: whether every record has the checksum of its image.
        targets_are_classes: whether the targets number the classes of the labels; None in older sets, which do not
            say it.
        version: of the file.
    """

    num_samples: int
    num_shards: int
    plan_sha256: str
    identity: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)
    class_names: list[str] | None = None
    requires: list[str] = field(default_factory=list)
    image_checksums: bool = False
    targets_are_classes: bool | None = None
    version: int = VERSION

    @property
    def form(self) -> tuple[str, bool]:
        """What writers of shards may do in two ways: the trailer's name, and whether images have checksums."""
        return self.trailer, self.image_checksums

    @property
    def trailer(self) -> str:
        """The name of the last member of the set's shards."""
        return TRAILER if TRAILER_FEATURE in self.requires else OLD_TRAILER


def numbers_classes(description: Description, identity: Identity) -> bool:
    """Return whether the targets number the classes of the labels.

    Older sets do not say it. For them it is concluded from the class names; where these leave it open, the answer is
    no.

    Args:
        description: of the set.
        identity: of the same set.
    """
    if description.targets_are_classes is not None:
        return description.targets_are_classes
    names, subset = description.class_names, identity.class_subset
    if names is None:  # no class folders
        return subset is None
    if len(names) != identity.num_classes:
        return False
    if all(name.isascii() and name.isdigit() for name in names):
        # Older sets sorted them as text: 0, 1, 10, 100.
        return all(int(name) == number for number, name in enumerate(names))
    by_name = names == sorted(names) and not all(re.fullmatch(r"n\d{8}", name) for name in names)
    return subset is None or not by_name


def encode_description(description: Description) -> bytes:
    """Encode slg.json, laid out for people."""
    fields = asdict(description)
    if not description.image_checksums:  # sets from before there were checksums lack the field
        del fields["image_checksums"]
    if description.targets_are_classes is None:
        del fields["targets_are_classes"]
    return pretty_json(seal(fields))


def decode_description(data: bytes | memoryview) -> Description:
    """Decode slg.json.

    Raises:
        ManifestError: the bytes are damaged, or a field has the wrong type.
        UnsupportedFeatureError: the version is newer, or `requires` names an unknown feature.
    """
    fields = unseal(data, pretty_json)
    check_version("slg.json", fields, VERSION)
    requires = strings(fields, "requires")
    unknown = [name for name in requires if name not in FEATURES]
    if unknown:
        raise UnsupportedFeatureError(f"the label set requires {', '.join(unknown)}", hint="update slg-wds")
    return Description(
        num_samples=typed(fields, "num_samples", int),
        num_shards=typed(fields, "num_shards", int),
        plan_sha256=typed(fields, "plan_sha256", str),
        identity=typed(fields, "identity", dict),
        provenance=typed(fields, "provenance", dict),
        class_names=None if fields.get("class_names") is None else strings(fields, "class_names"),
        requires=requires,
        image_checksums=typed({"image_checksums": False, **fields}, "image_checksums", bool),
        targets_are_classes=(
            typed(fields, "targets_are_classes", bool) if "targets_are_classes" in fields else None
        ),
    )
