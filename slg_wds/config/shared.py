"""Options that several commands share: object stores, images, teachers, the machine, Ray."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from tyro.conf import Positional, UseAppendAction, arg

from slg_wds.concurrency.cores import cores
from slg_wds.config.checks import check_at_once, check_choices, check_least, check_not_empty, check_targets
from slg_wds.config.command_line import option
from slg_wds.errors import UsageError
from slg_wds.masking import masked

if TYPE_CHECKING:
    from slg_wds.store.location import Location

Values = Literal["float32", "float16", "log8"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
VALUES = f"{{{','.join(get_args(Values))}}}"  # as --help shows the choices of an option that may be left out


def parse_store_options(options: Sequence[str]) -> dict[str, str]:
    """Turn texts of the form key=value into a mapping. Of equal keys, the last value counts.

    Raises:
        UsageError: a text is not of that form. It may be a secret, so the message gives its position only.
    """
    pairs = [option.partition("=") for option in options]
    for place, (name, equals, _) in enumerate(pairs, 1):
        if not equals or not name:
            raise UsageError(f"--store-option {place} of {len(pairs)} is not key=value")
    return {name: value for name, _, value in pairs}


Repeated = Annotated[
    UseAppendAction[tuple[tuple[str, ...], ...]],
    arg(
        metavar="KEY=VALUE ...",
        help="Settings of object stores, such as endpoint=http://host:9000; may be repeated. Most users need none: "
        "credentials come from the environment or from the files of the cloud's own tools.",
        help_behavior_hint="",
    ),
]


def _store_options(store_option: Repeated = ()) -> dict[str, str]:
    return parse_store_options([text for texts in store_option for text in texts])


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How object stores are reached. Every command has these options."""

    PANEL: ClassVar[str] = "Object store"

    store_options: Annotated[dict[str, str], option(name="", constructor=_store_options)] = field(
        default_factory=dict
    )
    """Settings of object stores by their names, such as {"endpoint": "http://host:9000"}."""

    def __post_init__(self) -> None:
        for one in fields(self):
            object.__setattr__(self, one.name, _text(getattr(self, one.name)))
        check_choices(self)
        check_not_empty(self)
        if not isinstance(self.store_options, Mapping):  # it may hold secrets, so it is not repeated
            raise UsageError("store_options is no mapping", hint='write {"endpoint": "http://host:9000"}')

    def at(self, url: str) -> Location:
        """Return a URL of this command together with its store options."""
        from slg_wds.store.location import Location  # --help needs no store

        return Location(url, self.store_options)

    def __init_subclass__(cls) -> None:
        cls.__repr__ = StoreConfig.__repr__  # type: ignore[method-assign]  # a dataclass then makes none of its own

    def __repr__(self) -> str:
        """Return the options that are not as by default, what is worked on first; secrets are masked."""
        given = {one: getattr(self, one.name) for one in fields(self)}
        changed = [one for one, value in given.items() if value != _default(one)]
        shown = (f"{one.name}={masked(given[one])!r}" for one in sorted(changed, key=_place_in_repr))
        return f"{type(self).__name__}({', '.join(shown)})"


def _text(value: object) -> object:
    """Return an option's value with paths of pathlib, alone or among several, as text."""
    if isinstance(value, tuple):
        return tuple(map(_text, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _default(one: Field[Any]) -> object:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _place_in_repr(one: Field[Any]) -> int:
    """Place positional arguments first, then the teachers and where the result goes, then all others as declared."""
    if "Positional[" in str(one.type):
        return 0
    return {"arch": 1, "save_path": 2}.get(one.name, 3)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Which images of a source are used, and what their keys and classes are."""

    PANEL: ClassVar[str] = "Image"

    split: Annotated[str | None, option("NAME", default="train where it exists; val for an evaluation")] = (
        None
    )
    """Sub-folder of the images to use."""
    list_file: Annotated[str | None, option("FILE", name="list")] = None
    """Use only the images that this file lists: one path, or unique file name, per line. A class number after it is
    ignored. For the 1% and 10% subsets of ImageNet, for example."""
    class_map: Annotated[str | None, option("FILE")] = None
    """File with the teacher's class number for each class folder, or for each target of image shards: lines `NAME
    NUMBER`, or JSON; `-` means no target. Needed if names are neither WordNet ids nor class numbers."""
    no_targets: bool = False
    """Ignore the classes that folders or samples give, and store no targets."""
    keep_extensions: bool = False
    """Keep file extensions in the keys of images. Use it if a folder holds both a.jpg and a.png."""
    prefix_keys: bool = False
    """Image shards: put the tar's name before each key. Use it if keys restart in every tar."""
    image_field: Annotated[str | None, option("EXTENSION", default="jpg, jpeg, png, ...")] = None
    """Image shards: extension of the members that are the images. Of several, separated by commas, the first that a
    sample has is read."""
    target_field: Annotated[
        str | None,
        option("FIELD", default="the .cls member, else label, cls, target, class_id or class of the .json"),
    ] = None
    """Image shards: what gives the class, as a number or a name: a member (`cls`, `txt`), a field of the .json
    (`label`, `json:meta.label`), or `tar` for the name of the tar."""


@dataclass(frozen=True, kw_only=True)
class SourceConfig(ImageOptions, StoreConfig):
    """Which images are used and how they are reached. Every command that lists images has these options."""


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """Which networks are the teachers, and what their input is."""

    PANEL: ClassVar[str] = "Teacher"

    arch: Annotated[str, option("MODEL", short="-a")]
    """Name of the teacher at --teacher-source. Several, whose probabilities are averaged, are written as
    `timm:NAME,pytorch:NAME,private:MODULE:FUNCTION`."""
    teacher_source: Annotated[str, option("SOURCE")] = "timm"
    """Where the name is looked up: timm, pytorch (torchvision) or private (a function of yours that returns the
    model: `package.module:FUNCTION` or `FILE.py:FUNCTION`)."""
    teacher_path: Annotated[str | None, option("FILE", default="the published weights")] = None
    """Weights to load, .safetensors, .pth or .pt; one file per teacher, separated by commas."""
    weights: Annotated[tuple[float, ...] | None, option("WEIGHT ...", default="equal")] = None
    """Weight of each teacher in the average of several."""
    input_size: Annotated[int | None, option("PIXELS", default="the teacher's own")] = None
    """Side of the teacher's square input."""
    mean: Annotated[tuple[float, float, float] | None, option("R G B", default="the teacher's own")] = None
    """Mean of each channel that normalisation subtracts, for pixels in 0..1."""
    std: Annotated[tuple[float, float, float] | None, option("R G B", default="the teacher's own")] = None
    """Standard deviation of each channel that normalisation divides by, for pixels in 0..1."""
    interpolation: Annotated[str | None, option("MODE", default="the teacher's own")] = None
    """How crops are resized to the input: bicubic, bilinear or nearest."""
    crop_pct: Annotated[float | None, option("SHARE", default="the teacher's own")] = None
    """Side of the central crop that an evaluation cuts, as a share of the resized image's side."""
    class_subset: Annotated[str | None, option("FILE", default="all classes")] = None
    """Label over some of the teacher's classes only, for a student that knows fewer: a file of class numbers, or `auto`
    for the classes of the class folders. Accuracies are over all classes nonetheless."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where the images are."""

    PANEL: ClassVar[str] = "Image"

    data: Annotated[Positional[str], option("IMAGES")]
    """The images: a folder of class folders (or one with train and val folders), a flat folder, or WebDataset shards
    (a folder or URL of .tar files, or a pattern such as data/train-{0000..0127}.tar)."""


@dataclass(frozen=True, kw_only=True)
class PixelOptions:
    """How large an image may be."""

    PANEL: ClassVar[str] = "Image"

    max_pixels: Annotated[int, option("N")] = 67_108_864
    """Largest image that is decoded, in pixels. It guards against decompression bombs; a larger image is an error."""


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What the teachers run on, and how fast."""

    PANEL: ClassVar[str] = "Machine"

    gpu: Annotated[int | None, option("N", default="the first for an evaluation, else see --devices")] = None
    """Run on the GPU of this number only."""
    precision: Precision = "fp32"
    """Arithmetic of the forward pass. tf32 is fp32 with products rounded by the GPU, several times as fast; bf16 and
    fp16 are faster still."""
    compile: bool = False
    """Compile the teacher with torch.compile. It takes about a minute at the start: worth it for all but short runs."""
    batch_size: Annotated[
        int | None,
        option(
            "N",
            default="50 for an evaluation, else enough for two forwards, 8 to 128, more of a slow source",
            short="-b",
        ),
    ] = None
    """Most images that are read and decoded ahead of the teacher. --num-seg, not this, is the size of a forward."""
    num_seg: Annotated[
        int | None, option("N", default="50 for an evaluation, else 256 on a GPU, 50 on a CPU")
    ] = None
    """Crops, or for an evaluation images, in one forward: the teacher's true batch size. --num-crops of `generate` need
    not be a multiple of it."""
    IF_MEMORY_IS_FULL: ClassVar[str] = "lower --num-seg"
    workers: Annotated[
        int, option("N", default="0, one per core, shared by the processes of a machine", short="-j")
    ] = 0
    """Threads of each process that decode images and cut crops."""
    threads_per_forward: Annotated[
        int | None, option("N", default="all cores, shared by the processes of a machine")
    ] = None
    """CPU threads of one forward. On a CPU, the last bits of the results depend on it."""


@dataclass(frozen=True, kw_only=True)
class CompatibilityOptions:
    """Flags of FKD's command lines."""

    PANEL: ClassVar[str] = "FKD compatibility"

    pretrained: bool = False
    """Accepted and ignored: published weights are loaded in any case, unless --teacher-path gives others."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(
    TeacherOptions, DataOptions, SourceConfig, PixelOptions, MachineOptions, CompatibilityOptions
):
    """Which images, which teachers, and on what they run. `generate` and `evaluate` share these options."""

    def check(self) -> None:
        """Check values against each other and their ranges.

        Raises:
            UsageError: an option has a value that makes no sense. Nothing slow has been started by then.
        """
        check_least(self, gpu=0, batch_size=1, num_seg=1, input_size=1, max_pixels=1)
        check_at_once(self, workers=0, threads_per_forward=1)
        check_targets(self, map_for_subset=self.class_subset == "auto")

    @property
    def num_workers(self) -> int:
        """Decoding threads: as many as asked for, or one for each core that this process may use."""
        return self.workers or cores()

    @property
    def forward_threads(self) -> int:
        """CPU threads of one forward: as many as asked for, or one for each core that this process may use."""
        return self.threads_per_forward or cores()


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where the workers of a command run. `generate`, `ensemble` and `import` share these options."""

    PANEL: ClassVar[str] = "Ray"

    engine: Literal["local", "ray"] = "local"
    """Where workers run: as processes of this machine, or as actors of a Ray cluster."""
    address: Annotated[
        str | None, option("ADDRESS", default="RAY_ADDRESS, else a cluster of this machine alone")
    ] = None
    """Address of the Ray cluster: auto, host:port or ray://host:port."""
    actors: Annotated[int | None, option("N", default="as many as the cluster has room for at the start")] = (
        None
    )
    """Largest number of Ray actors. They start as the cluster has room."""

    def check_engine(self) -> None:
        """Raise UsageError for options of Ray without Ray, and for a number of actors out of range."""
        check_at_once(self, actors=1)
        if self.engine != "ray" and (self.actors or self.address):
            given = "--actors" if self.actors else "--address"
            raise UsageError(f"{given} is for --engine ray")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the label set goes, and what happens to images without labels."""

    PANEL: ClassVar[str] = "Output"

    save_path: Annotated[str, option("FOLDER|URL")]
    """Where the label set is written: a folder, or a URL such as s3://bucket/labels. Run the same command again to
    resume."""
    samples_per_shard: Annotated[int, option("N")] = 256
    """Images in a label shard. If the images are WebDataset shards, each of them gets one label shard instead. Give
    fewer if many processes share few images."""
    on_error: Literal["fail", "skip"] = "fail"
    """What happens if an image cannot be decoded, or has disappeared since the set was begun: `fail` stops the run;
    `skip` leaves the image out, and the set records it. A disk or bucket that cannot be read stops the run in any
    case."""
    max_left_out: Annotated[float | None, option("SHARE", default="0.01, but at least 10 images")] = None
    """Largest share of the set's images, in 0..1, that --on-error skip may leave out. Beyond it the run stops."""


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """How many processes of this machine share the work."""

    PANEL: ClassVar[str] = "Machine"

    processes: Annotated[int, option("N", default="0, one per core")] = 0
    """Processes of this machine that share the work."""


@dataclass(frozen=True, kw_only=True)
class RecheckOptions:
    """Which teachers label a sample of crops again."""

    PANEL: ClassVar[str] = "Check"

    arch: Annotated[str | None, option("MODEL", short="-a")] = None
    """The teachers that label a sample of crops again, named as for `generate`; for several sets, in the order of the
    sets. Only these are loaded: what a label set names as its teachers is never run."""
    teacher_source: Annotated[str, option("SOURCE")] = "timm"
    """Where -a is looked up: timm, pytorch (torchvision) or private (your function)."""
    teacher_path: Annotated[str | None, option("FILE", default="the published weights")] = None
    """Weights of these teachers, as for `generate`."""
    check_crops: Annotated[int, option("N")] = 512
    """Crops that the teachers label again."""
