"""Members of a tar -> samples, as WebDataset groups them: alike up to the first dot of the base name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from slg_wds.errors import DuplicateKeyError, ImageShardError
from slg_wds.images.tars.reader import RangeReader, TarMember, scan_tar
from slg_wds.images.tars.sample_targets import USUAL, RawTarget, TargetField, read_target

IMAGE_EXTENSIONS = (
    "jpg",
    "jpeg",
    "jfif",
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
MAX_SAMPLES = 1 << 24  # of one tar
MAX_TARGET_BYTES = 1 << 20
MAX_TARGET = 2**31 - 1


@dataclass(frozen=True)
class SampleFields:
    """Which members of a sample are its image and its target.

    Attributes:
        image: extensions in lower case, the first that a sample has is its image.
        target: where the target stands; None: nowhere, no sample has one.
        names: take a text as the name of a class. Else only numbers are targets.
        skip: plan a sample without an image too, with a size of 0, to be left out and recorded.
    """

    image: tuple[str, ...] = IMAGE_EXTENSIONS
    target: TargetField | None = USUAL
    names: bool = False
    skip: bool = False


DEFAULTS = SampleFields()


@dataclass
class Scanned:
    """The samples of one shard, n of them.

    paths: names of members, [n]. targets: [n]. offsets, sizes: where the images lie, [n].
    without_image: what is wrong with each sample that has no image.
    """

    paths: list[str] = field(default_factory=list)
    targets: list[RawTarget] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    without_image: list[ImageShardError] = field(default_factory=list)


def scan_samples(read: RangeReader, fields: SampleFields = DEFAULTS) -> Scanned:
    """The samples of one tar, as WebDataset groups them.

    Raises ImageShardError: as `scan_tar`, or a sample without an image or with a target that is no class number.
    """
    scanned = Scanned()
    for key, members in _samples(scan_tar(read)):
        if len(scanned.paths) == MAX_SAMPLES:
            raise ImageShardError(f"it holds over {MAX_SAMPLES} samples")
        image = next((members[ext] for ext in fields.image if ext in members), None)
        if image is None:
            scanned.without_image.append(_no_image(key, members, fields))
            if not fields.skip:
                raise scanned.without_image[0]
        elif image.link:
            raise ImageShardError(f"the image {image.name!r} is a link", hint="pack it with its content")
        first = image or next(iter(members.values()))
        scanned.paths.append(first.name.removeprefix("./"))
        scanned.targets.append(_target(read, key, members, fields) if image else None)
        scanned.offsets.append(first.offset)
        scanned.sizes.append(image.size if image else 0)
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


def _no_image(key: str, members: Mapping[str, TarMember], fields: SampleFields) -> ImageShardError:
    """What is wrong with a sample without an image, and what to do about it."""
    first = next(iter(members.values()))
    alike = next((ext for ext in members if ext.rpartition(".")[2] in IMAGE_EXTENSIONS), None)
    if "tar" in members:
        return ImageShardError(
            f"it holds tars ({first.name!r}), not images",
            hint="unpack it with `tar -xf`, then give that folder",
        )
    asked = "" if fields.image == IMAGE_EXTENSIONS else f" .{' or .'.join(fields.image)}"
    return ImageShardError(
        f"the sample {key!r} at byte {first.offset} has no image{asked} (only {', '.join(sorted(members))})",
        hint=f"--image-field {alike} takes that member as the image"
        if alike
        else "the members of a sample stand together, named alike up to the first dot",
    )


def _target(read: RangeReader, key: str, members: Mapping[str, TarMember], fields: SampleFields) -> RawTarget:
    if fields.target is None or fields.target.from_tar:
        return None
    member, path = fields.target.choose(members)
    if member is None and fields.target.member is not None:
        raise ImageShardError(
            f"the sample {key!r} has no target .{fields.target.member} (only {', '.join(sorted(members))})",
            hint="--target-field names the member that says the class",
        )
    if member is None or member.link:
        return None
    if member.size > MAX_TARGET_BYTES:
        raise ImageShardError(f"the target {member.name!r} is of {member.size} bytes")
    where = f"the target {member.name!r} at byte {member.offset}"
    try:
        value = read_target(
            read(member.offset, member.size), member.name.lower().endswith("json"), fields.target, path
        )
    except (ValueError, RecursionError) as error:
        raise ImageShardError(f"{where} is no class number: {_shortly(error)}") from None
    if isinstance(value, str) and not fields.names:
        raise ImageShardError(
            f"{where} is no class number: {value[:40]!r}",
            hint="--class-map FILE gives each such name its number, or --target-field names the member to take",
        )
    if isinstance(value, int) and not -1 <= value <= MAX_TARGET:
        raise ImageShardError(f"{where} is {value}")
    return None if value == -1 else value


def _shortly(error: ValueError | RecursionError) -> str:
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).partition("\n")[0][:100]
