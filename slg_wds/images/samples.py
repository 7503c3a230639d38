"""Members of a tar -> samples, as WebDataset groups them: alike up to the first dot of the base name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from slg_wds.errors import DuplicateKeyError, ImageShardError
from slg_wds.images.tars import Ranges, TarMember, scan_tar

IMAGE_EXTENSIONS = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    "ppm",
    "pgm",
    "pbm",
    "bmp",
    "tif",
    "tiff",
    "gif",
    "avif",
    "jp2",
)
TARGET_FIELDS = ("label", "cls", "target", "class_id", "class")  # of a .json member, the first that there is
MAX_TARGET_BYTES = 1 << 20


@dataclass
class Scanned:
    """The samples of one shard, n of them: paths (member names), class numbers (-1 for none), where images lie."""

    paths: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


def scan_samples(read: Ranges, target_field: str | None = None) -> Scanned:
    """The samples of one tar, as WebDataset groups them.

    Raises ImageShardError: as `scan_tar`, or a sample without an image or with a target that is no class number.
    """
    scanned = Scanned()
    for key, members in _samples(scan_tar(read)):
        image = next((members[ext] for ext in IMAGE_EXTENSIONS if ext in members), None)
        if image is None:
            raise ImageShardError(
                f"the sample {key!r} at byte {next(iter(members.values())).offset} has no image "
                f"(only {', '.join(sorted(members))})",
                hint="the members of a sample stand together, named alike up to the first dot",
            )
        if image.link:
            raise ImageShardError(f"the image {image.name!r} is a link", hint="pack it with its content")
        scanned.paths.append(image.name.removeprefix("./"))
        scanned.targets.append(_target(read, members, target_field))
        scanned.offsets.append(image.offset)
        scanned.sizes.append(image.size)
    return scanned


def _samples(members: Iterator[TarMember]) -> Iterator[tuple[str, dict[str, TarMember]]]:
    """(key, members by extension in lower case) of each run of members of one key; others are passed over."""
    current: str | None = None
    sample: dict[str, TarMember] = {}
    for member in members:
        folder, slash, base = member.name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not stem or not dot or (folder.startswith("__") and folder.partition("/")[0].endswith("__")):
            continue  # as WebDataset does: hidden files, files without extension, __meta__/...
        key, extension = folder + slash + stem, extension.lower()
        if key != current:
            if current is not None:
                yield current, sample
            current, sample = key, {}
        if extension in sample:
            raise DuplicateKeyError(f"the sample {key!r} has two members .{extension}")
        sample[extension] = member
    if current is not None:
        yield current, sample


def _target(read: Ranges, members: dict[str, TarMember], target_field: str | None) -> int:
    member = members.get("cls") if target_field is None else None
    member = member or members.get("json")
    if member is None or member.link:
        return -1
    if member.size > MAX_TARGET_BYTES:
        raise ImageShardError(f"the target {member.name!r} is of {member.size} bytes")
    data = read(member.offset, member.size)
    try:
        value = _from_text(data) if member is members.get("cls") else _from_json(data, target_field)
    except (ValueError, RecursionError):
        raise ImageShardError(
            f"the target {member.name!r} at byte {member.offset} is no class number"
        ) from None
    if not -1 <= value < 2**31:
        raise ImageShardError(f"the target {member.name!r} at byte {member.offset} is {value}")
    return value


def _from_text(data: bytes) -> int:
    text = data.strip()
    if not text.removeprefix(b"-").isdigit():  # int() takes 1_000 too
        raise ValueError
    return int(text)


def _from_json(data: bytes, target_field: str | None) -> int:
    """The class number in a JSON object; -1 where it has none and none was asked for by name."""
    document = json.loads(data)
    if not isinstance(document, dict):
        raise ValueError
    names = TARGET_FIELDS if target_field is None else (target_field,)
    value = next((document[name] for name in names if name in document), None if target_field is None else "")
    if value is None:
        return -1
    if type(value) is not int:
        raise ValueError
    return value
