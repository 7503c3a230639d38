"""Members of a tar -> samples, as WebDataset groups them: by the name up to the first dot of the base name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from slg_wds.console import first_few
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
BARE_MEMBERS, HIDDEN_MEMBERS = "members without extension", "hidden members"
MAX_SAMPLES = 1 << 24  # of one tar
MAX_TARGET_BYTES = 1 << 20
MAX_TARGET = 2**31 - 1


@dataclass(frozen=True)
class SampleFields:
    """Which members of a sample are its image and its target.

    Attributes:
        image: extensions in lower case; the first one that a sample has is its image.
        target: where the target is; None: samples have none.
        names: whether a target may be a text, the name of a class. If not, it must be a number.
        skip: whether to plan samples without an image too, with a size of 0, so that they are recorded as left out.
    """

    image: tuple[str, ...] = IMAGE_EXTENSIONS
    target: TargetField | None = USUAL
    names: bool = False
    skip: bool = False


DEFAULTS = SampleFields()


@dataclass
class ScannedTar:
    """The n samples of one tar.

    Attributes:
        paths: names of the members that are images, [n]. For a sample without an image: its first member.
        targets: of the samples, [n].
        offsets: of the images in the tar, in bytes, [n].
        sizes: of the images, in bytes, [n]; 0 without an image.
        without_image: an error for each sample that has no image.
        passed_over: number of members that belong to no sample, as WebDataset has it, by kind.
    """

    paths: list[str] = field(default_factory=list)
    targets: list[RawTarget] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    without_image: list[ImageShardError] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def scan_samples(read: RangeReader, fields: SampleFields = DEFAULTS) -> ScannedTar:
    """Return the samples of one tar: adjacent members whose names are the same up to the first dot.

    Args:
        read: reads the tar.
        fields: which members are images and targets.

    Raises:
        ImageShardError: as `scan_tar`; or a sample without an image, or with a target that is not a class.
        DuplicateKeyError: a sample with two members of the same extension.
    """
    scanned = ScannedTar()
    for key, members in _samples(scan_tar(read), scanned.passed_over):
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


def _samples(
    members: Iterator[TarMember], passed_over: Counter[str]
) -> Iterator[tuple[str, dict[str, TarMember]]]:
    """Yield (key, members by extension in lower case) of each run of members with one key; count others."""
    current: str | None = None
    sample: dict[str, TarMember] = {}
    for member in members:
        folder, slash, base = member.name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if folder.startswith("__") and folder.partition("/")[0].endswith("__"):
            continue  # __meta__/... has no samples
        if not stem or not dot:
            passed_over[BARE_MEMBERS if stem else HIDDEN_MEMBERS] += 1
            continue
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
    """Return the error for a sample without an image, with a hint that fits its members."""
    first = next(iter(members.values()))
    alike = [ext for ext in members if ext.rpartition(".")[2] in IMAGE_EXTENSIONS]
    if "tar" in members:
        return ImageShardError(
            f"it holds tars ({first.name!r}), not images",
            hint="unpack it with `tar -xf`, then give that folder",
        )
    asked = "" if fields.image == IMAGE_EXTENSIONS else f" .{' or .'.join(fields.image)}"
    return ImageShardError(
        f"the sample {key!r} at byte {first.offset} has no image{asked} (only {first_few(sorted(members))})",
        hint=_which_image(alike)
        if alike
        else "the members of a sample are adjacent and have the same name up to the first dot",
    )


def _which_image(alike: Sequence[str]) -> str:
    """Return the hint for a sample whose image is one of these members, or that is really several images."""
    taken = f"--image-field {alike[0]} takes that member as the image"
    if len(alike) == 1:
        return taken
    each = "if each of them is an image, rename them, since a sample's name ends at its first dot"
    return f"{taken}, and no other one of the sample; {each}"


def _target(read: RangeReader, key: str, members: Mapping[str, TarMember], fields: SampleFields) -> RawTarget:
    """Read the target of a sample; None if it has none. Raises ImageShardError."""
    if fields.target is None or fields.target.from_tar:
        return None
    member, path = fields.target.choose(members)
    if member is None and fields.target.member is not None:
        raise ImageShardError(
            f"the sample {key!r} has no target .{fields.target.member} (only {first_few(sorted(members))})",
            hint="--target-field names the member that says the class",
        )
    if member is None or member.link:
        return None
    if member.size > MAX_TARGET_BYTES:
        raise ImageShardError(f"the target {member.name!r} has {member.size} bytes")
    where = f"the target {member.name!r} at byte {member.offset}"
    try:
        value = read_target(
            read(member.offset, member.size), member.name.lower().endswith("json"), fields.target, path
        )
    except (ValueError, RecursionError) as error:
        raise ImageShardError(f"{where} is no class number: {_reason(error)}") from None
    if isinstance(value, str) and not fields.names:
        raise ImageShardError(
            f"{where} is no class number: {value[:40]!r}",
            hint="--class-map FILE gives each such name its number, or --target-field names the member to take",
        )
    if isinstance(value, int) and not -1 <= value <= MAX_TARGET:
        raise ImageShardError(f"{where} is {value}")
    return None if value == -1 else value


def _reason(error: ValueError | RecursionError) -> str:
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).partition("\n")[0][:100]
