"""Options that several commands share: stores, image sources, teachers, engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from slg_wds.concurrency.cores import cores
from slg_wds.config.choices import check_choices, flag
from slg_wds.errors import UsageError
from slg_wds.masking import masked
from slg_wds.store.location import Location

Values = Literal["float32", "float16", "log8"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]


def parse_store_options(options: Sequence[str]) -> dict[str, str]:
    """key=value texts as a mapping. Raises UsageError where one is not key=value."""
    pairs = [option.partition("=") for option in options]
    for place, (name, equals, _) in enumerate(pairs, 1):
        if not equals or not name:  # it may be a secret, so it is not repeated
            raise UsageError(f"--store-option {place} of {len(pairs)} is not key=value")
    return {name: value for name, _, value in pairs}


StoreOptions = Annotated[
    dict[str, str],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[KEY=VALUE ...]",
        instance_from_str=parse_store_options,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [f"{name}={one}" for name, one in value.items()],
    ),
    arg(name="store-option"),
]


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How object stores are reached: what every command shares."""

    store_options: StoreOptions = field(default_factory=dict)
    """Settings of an object store, key=value (for example endpoint=http://host:9000)."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not isinstance(self.store_options, Mapping):  # it may hold secrets, so it is not repeated
            raise UsageError("store_options is no mapping", hint='write {"endpoint": "http://host:9000"}')

    def at(self, url: str) -> Location:
        """Return a URL of this command together with its store options."""
        return Location(url, self.store_options)

    def __init_subclass__(cls) -> None:
        cls.__repr__ = StoreConfig.__repr__  # type: ignore[method-assign]  # which a dataclass then leaves as it is

    def __repr__(self) -> str:
        shown = (f"{one.name}={masked(getattr(self, one.name))!r}" for one in fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, kw_only=True)
class SourceConfig(StoreConfig):
    """Which images of a source are used, and their keys and classes: what every command that lists images shares."""

    split: str | None = None
    """Sub-folder of the images to use (default: train where it exists; val for an evaluation)."""
    list_file: Annotated[str | None, arg(name="list")] = None
    """Only the images listed in this file, one path (or unique file name) a line; a number after it is passed over."""
    class_map: str | None = None
    """File that gives class folders, or targets of image shards, their class number in the teacher: lines
    `name number`, or JSON; `-` for no target. Needed where names are neither WordNet ids nor class numbers."""
    no_targets: bool = False
    """Take no targets from folders or samples."""
    keep_extensions: bool = False
    """Keep file extensions in keys, for folders that hold a.jpg beside a.png."""
    prefix_keys: bool = False
    """Image shards whose keys restart in each tar: put the tar's name before them."""
    image_field: str | None = None
    """Image shards: extension of the members that are the images, or several by commas, the first that is there
    (default: jpg, jpeg, png, ...)."""
    target_field: str | None = None
    """Image shards: what says the class, as a number or a name: a member (`cls`, `txt`), a field of the .json
    (`label`, `json:meta.label`), or `tar` for the tar's own name (default: .cls, else label, cls, target, class_id or
    class of the .json)."""


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(SourceConfig):
    """Which images, which teachers, and on what they run: what `generate` and `evaluate` share."""

    data: Positional[str]
    """Images: a folder of class folders (or with train and val folders), a flat folder, or WebDataset shards (a
    folder or URL of .tar files, or a brace pattern)."""
    arch: Annotated[str, arg(aliases=["-a"])]
    """Teacher: a model of --teacher_source; for several, `timm:a,pytorch:b,private:module:factory`."""
    teacher_source: str = "timm"
    """Where -a is looked up: timm, pytorch (torchvision) or private (`package.module:factory`, `file.py:factory`)."""
    teacher_path: str | None = None
    """Weights to load instead of the published ones: .safetensors, .pth or .pt; one per teacher, by commas."""
    pretrained: bool = False
    """Accepted for FKD's command lines; published weights are always used unless --teacher_path gives others."""
    weights: tuple[float, ...] | None = None
    """Weight of each teacher in the average of several (default: equal)."""
    input_size: int | None = None
    """Side of the teacher's input in pixels (default: the teacher's own)."""
    mean: tuple[float, float, float] | None = None
    """Mean of the input's normalisation, of pixels in 0..1 (default: the teacher's own)."""
    std: tuple[float, float, float] | None = None
    """Standard deviation of the input's normalisation (default: the teacher's own)."""
    interpolation: str | None = None
    """Resize of crops: bicubic, bilinear or nearest (default: the teacher's own)."""
    crop_pct: float | None = None
    """Part of the resized image that the evaluation's central crop shows (default: the teacher's own)."""
    precision: Precision = "fp32"
    """Arithmetic of the forward: fp32, tf32 (a GPU rounds products of fp32: several times as fast), bf16 or fp16."""
    compile: bool = False
    """Compile the teacher (torch.compile); worth its minute of start on any real run."""
    gpu: int | None = None
    """Number of the one GPU to run on (default: see --devices)."""
    threads_per_forward: int | None = None
    """CPU threads of one forward (default: all cores, shared evenly by the processes of one machine). Results move in
    the last bits with it on a CPU."""
    batch_size: Annotated[int | None, arg(aliases=["-b"])] = None
    """Images decoded ahead at most (default: those that fill two forwards, 8 to 128). Does not set the forward's size:
    see --num_seg."""
    workers: Annotated[int, arg(aliases=["-j"])] = 0
    """Threads of each process that decode and crop (0: one per core, shared evenly by the processes of one machine)."""
    class_subset: str | None = None
    """Make labels over these classes only: a file of class numbers, or `auto` (the class folders' own)."""
    max_pixels: int = 67_108_864
    """Largest image accepted, in pixels; guards against decompression bombs."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be, before anything slow starts."""
        least = {"batch_size": 1, "workers": 0, "threads_per_forward": 1, "input_size": 1, "max_pixels": 1}
        for name, lowest in least.items():
            if (value := getattr(self, name)) is not None and value < lowest:
                raise UsageError(f"{flag(name)} {value} is below {lowest}")

    @property
    def num_workers(self) -> int:
        """Decoding threads: those asked, or the cores that this process may use."""
        return self.workers or cores()


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where the workers of a command run: what `generate`, `ensemble` and `import` share."""

    engine: Literal["local", "ray"] = "local"
    """Workers are processes of this machine, or actors of a Ray cluster."""
    address: str | None = None
    """The Ray cluster: auto, host:port or ray://host:port (default: RAY_ADDRESS, else one of this machine alone)."""
    actors: int | None = None
    """Ray actors at most; they start as the cluster has room (default: as many as it has room for now)."""

    def check_engine(self) -> None:
        """Raise UsageError for options of an engine that cannot be."""
        if self.actors is not None and self.actors < 1:
            raise UsageError(f"--actors {self.actors} is below 1")
        if self.engine != "ray" and (self.actors or self.address):
            given = "--actors" if self.actors else "--address"
            raise UsageError(f"{given} is for --engine ray")


def check_share(name: str, share: float | None) -> None:
    """Raise UsageError for a share that is not inside 0..1."""
    if share is not None and not 0 <= share <= 1:
        raise UsageError(f"{name} {share:g} is not inside 0..1")
