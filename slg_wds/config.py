"""The options of every command: one frozen dataclass each, which is the command line and the Python API alike."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from slg_wds.choices import check_choices, flag
from slg_wds.cores import cores
from slg_wds.errors import UsageError
from slg_wds.masking import masked

Values = Literal["float32", "float16", "log8"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """How object stores are reached: what every command shares."""

    store_option: tuple[str, ...] = ()
    """Settings of an object store, key=value (for example endpoint=http://host:9000)."""

    @property
    def store_options(self) -> dict[str, str]:
        """--store-option as a mapping. Raises UsageError where one is not key=value."""
        return parse_store_options(self.store_option)

    def __post_init__(self) -> None:
        check_choices(self)

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
    batch_size: Annotated[int, arg(aliases=["-b"])] = 8
    """Images decoded ahead. Does not set the forward's size: see --num_seg."""
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


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(TeacherConfig, EngineConfig):
    """Label many random crops of every image with a teacher, into a label set of WebDataset shards."""

    save_path: str = ""
    """Where the label set goes: a folder, or a URL such as s3://bucket/prefix. Run again to resume."""
    devices: str | None = None
    """What to run on, a process each: `0,1`, `cuda:0,cuda:2`, or `cpu:N` for N CPU processes (default: all GPUs, or
    one CPU process; under torchrun and srun each process's own GPU)."""
    gpus_per_actor: float | None = None
    """GPUs of each Ray actor, 0.5 for two on one (default: 1, or 0 where the cluster has none)."""
    num_crops: int = 500
    """Crops of each image."""
    num_seg: int = 50
    """Crops in one forward, the true batch size. --num_crops need not be a multiple."""
    label_type: str = "marginal_smoothing_k5"
    """hard, smoothing, marginal_smoothing_kN, marginal_renorm_kN, shared_tail_kN or full."""
    values: Values | None = None
    """Coding of probabilities (default: float16). log8 halves them at no measurable loss; where very many classes
    of `full` labels would lose over 2%, it is refused."""
    use_fp16: bool = False
    """FKD's spelling of --values float16."""
    tail_classes: int = 64
    """Classes that the shared tail of an image keeps; 0 writes none."""
    temp: float = 1.0
    """Temperature: logits are divided by it before the softmax."""
    reference_path: str | None = None
    """Label set, or folder of FKD's label files, whose boxes and flips are used (of more crops, the first)."""
    extendable: bool = False
    """Keep the sums of each shared tail (8 KB an image for 1000 classes): --extend then makes the tails of one run.
    Without, a joined set's tails are its parts', averaged."""
    extend: str | None = None
    """Label set of fewer crops: only the crops that it lacks are labelled (all of images that are new), into a set at
    --save_path that goes with it: the loader reads OLD and NEW as one set, `slg-wds ensemble OLD NEW --save-path ALL`
    makes one of both."""
    min_scale_crops: float = 0.08
    """Least area of a crop, as a part of the image."""
    max_scale_crops: float = 1.0
    """Largest area of a crop. The original's code has 0.936, made for tf_efficientnet_l2_ns_475; give it to match."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest aspect ratio of a crop, width over height."""
    flip_prob: float = 0.5
    """Probability that a crop is flipped."""
    seed: int = 0
    """Seeds the boxes, flips and the order of images in shards."""
    embed_images: str | None = None
    """Put the images into the shards: `original`, or `max-side=512[,quality=90]` (re-encoded before labelling)."""
    samples_per_shard: int = 256
    """Images in a shard. Image shards as a source keep their own."""
    on_error: Literal["fail", "skip"] = "fail"
    """An image that cannot be decoded, or is gone from its folder since the set was begun, stops the run, or is left
    out, counted and recorded. What cannot be read (a disk or bucket that is away) stops the run in any case."""
    max_left_out: float | None = None
    """Share of the images that --on-error skip may leave out of the set, whoever makes it: a run that comes to more
    stops (default: 0.01, and at least 10 images)."""
    evaluate: Annotated[bool, arg(aliases=["-e"])] = False
    """Only report the teacher's accuracy on DATA/val."""
    dry_run: bool = False
    """Only say what would be done: images, shards, predicted bytes and hours from a few measured forwards."""

    def check(self) -> None:
        super().check()
        self.check_engine()
        if self.engine == "ray" and (self.devices is not None or self.gpu is not None):
            raise UsageError("--devices and --gpu are for --engine local", hint="see --gpus-per-actor")
        if self.engine != "ray" and self.gpus_per_actor is not None:
            raise UsageError("--gpus-per-actor is for --engine ray")
        if self.gpus_per_actor is not None and not 0 <= self.gpus_per_actor < 1 << 10:
            raise UsageError(f"--gpus-per-actor {self.gpus_per_actor:g} is not a number of GPUs")
        for name in ("num_crops", "num_seg", "samples_per_shard"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)} is below 1")
        if self.num_crops > 1_000_000:
            raise UsageError(f"--num_crops {self.num_crops} is above 1,000,000")
        if not 0 < self.temp < float("inf"):
            raise UsageError(f"--temp {self.temp:g} is not positive")
        if self.tail_classes < 0:
            raise UsageError(f"--tail-classes {self.tail_classes} is below 0")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed} is not inside 0..2^63-1")
        check_share("--max-left-out", self.max_left_out)
        if self.use_fp16 and self.values not in (None, "float16"):
            raise UsageError(f"--use_fp16 contradicts --values {self.values}")
        if not self.save_path and not (self.dry_run or self.evaluate):
            raise UsageError("--save_path is missing", hint="say where the label set goes")

    @property
    def coding(self) -> Values:
        """The coding of probabilities that was asked for."""
        return self.values or "float16"


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TeacherConfig):
    """Report a teacher's top-1, top-5 and loss under its own evaluation transform."""

    json: bool = field(default=False)
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig(EngineConfig, StoreConfig):
    """Merge label sets of the same crops into one: the weighted mean of their distributions. One set alone is
    re-sharded, cut to fewer classes or coded anew; a set and one that extends it (generate --extend) become one."""

    sets: Positional[tuple[str, ...]]
    """Label sets, complete and of the same images and crops; shards and order may differ."""
    save_path: str
    """Where the merged set goes: a folder or URL. Run again to resume."""
    weights: tuple[float, ...] | None = None
    """Weight of each set in the mean (default: equal)."""
    label_type: str | None = None
    """hard, smoothing, marginal_smoothing_kN, marginal_renorm_kN, shared_tail_kN or full (default: the first set's)."""
    values: Values | None = None
    """Coding of probabilities (default: the first set's)."""
    tail_classes: int | None = None
    """Classes that the shared tail of an image keeps; 0 writes none (default: the first set's)."""
    samples_per_shard: int | None = None
    """Images in a shard (default: the first set's shards)."""
    processes: int = 0
    """Processes that merge, of --engine local (0: one per core)."""
    check_data: Annotated[str | None, arg(name="check")] = None
    """The images, to measure how far the merge is from the teachers themselves on a random sample; needs -a."""
    check_crops: int = 512
    """Crops of that sample."""
    arch: Annotated[str | None, arg(aliases=["-a"])] = None
    """The teachers of the sets in their order, for --check: as for generate."""
    teacher_source: str = "timm"
    """Where -a is looked up: timm, pytorch (torchvision) or private."""
    teacher_path: str | None = None
    """Weights of the teachers of --check: as for generate."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be, before anything is opened."""
        self.check_engine()
        if not self.sets:
            raise UsageError("no label set is given")
        for name, least in (
            ("samples_per_shard", 1),
            ("tail_classes", 0),
            ("processes", 0),
            ("check_crops", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} {value} is below {least}")
        if (self.check_data is None) != (self.arch is None):
            raise UsageError("--check and -a go together: the images, and the teachers to ask")


@dataclass(frozen=True, kw_only=True)
class ImportConfig(EngineConfig, SourceConfig):
    """Turn FKD's label files into a label set."""

    fkd_dir: Positional[str]
    """Folder of label files, as FKD's generator or its label zoo has them: .../train/CLASS/NAME.tar."""
    images: str
    """The images that the labels are of: a folder of class folders (or with a train folder)."""
    save_path: str
    """Where the label set goes: a folder, or a URL such as s3://bucket/prefix. Run again to resume."""
    label_type: str | None = None
    """Label type, where the labels' shape does not say it: marginal_renorm looks like marginal_smoothing."""
    values: Values | None = None
    """Coding of probabilities (default, exact: that of the files, float32 or with --use_fp16 float16)."""
    num_classes: int = 1000
    """Classes of the labels."""
    seed: int = 0
    """Seeds the order of images in shards."""
    samples_per_shard: int = 256
    """Images in a shard."""
    on_error: Literal["fail", "skip"] = "fail"
    """An image or label file without its partner, or one whose bytes make no sense, stops the run, or is left out,
    counted and recorded. What cannot be read (a disk or bucket that is away) stops the run in any case."""
    max_left_out: float | None = None
    """Share of the images that --on-error skip may leave out of the set, whoever makes it: a run that comes to more
    stops (default: 0.01, and at least 10 images)."""
    processes: int = 0
    """Processes that share the work, of --engine local (0: one per core)."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be, before anything slow starts."""
        self.check_engine()
        if not 1 <= self.num_classes <= 1 << 24:
            raise UsageError(f"--num-classes {self.num_classes} is not inside 1..{1 << 24}")
        if self.samples_per_shard < 1:
            raise UsageError(f"--samples-per-shard {self.samples_per_shard} is below 1")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed} is not inside 0..2^63-1")
        check_share("--max-left-out", self.max_left_out)
        if self.processes < 0:
            raise UsageError(f"--processes {self.processes} is below 0")


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StoreConfig):
    """Turn a label set into label files that FKD's and MEAL V2's training scripts read."""

    labels: Positional[str]
    """The label set: a folder or URL."""
    fkd_dir: Positional[str]
    """Folder to make; it must not exist or be empty."""
    layout: Literal["fkd", "mealv2"] = "fkd"
    """Where files go: train/CLASS/NAME.tar, or for MEAL V2's script DATASET/train/CLASS/NAME.tar."""
    dataset: str | None = None
    """DATASET of that layout, the name of the folder that holds train (default: that of the labelled images)."""
    use_fp16: bool = False
    """Write coordinates and labels as float16, as FKD's --use_fp16."""


@dataclass(frozen=True, kw_only=True)
class InspectConfig(StoreConfig):
    """Say what a label set is, how it was made, how complete it is and what it costs; or show one image's labels."""

    labels: Positional[str]
    """The label set: a folder or URL, finished or not."""
    key: str | None = None
    """Show this image's crops and labels: its key, or its path below the source."""
    crops: int = 20
    """Crops shown with --key."""
    json: bool = field(default=False)
    """Print JSON, for scripts."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be."""
        if self.crops < 1:
            raise UsageError(f"--crops {self.crops} is below 1")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(StoreConfig):
    """Check every byte and every label of a set, and with --teacher whose labels they are. Exit code 1 and a table
    where anything is wrong."""

    labels: Positional[str]
    """The label set: a folder or URL."""
    fix: bool = False
    """Make missing or wrong index parts and _info.json again, from whole shards."""
    delete_damaged: bool = False
    """Remove damaged shards too, for the command that made the set to redo. The exit code is 1: the set lacks them."""
    delete_left_out: bool = False
    """Remove the shards that left images out, in the same way, to have them made again with the images mended since."""
    allow_incomplete: bool = False
    """Take no offence at shards that an unfinished set lacks."""
    decode_images: bool = True
    """Decode embedded images; without, their checksums alone are compared."""
    max_pixels: int = 67_108_864
    """Largest embedded image that is decoded, in pixels."""
    images: str | None = None
    """Compare these images, the folder or tars, with those that were labelled; list all that are others or gone."""
    teacher: str | None = None
    """The images, to ask the teachers of -a again about a random sample of crops (not needed where embedded)."""
    arch: Annotated[str | None, arg(aliases=["-a"])] = None
    """The teachers to ask, as for generate; what the set says of them is compared, never loaded."""
    teacher_source: str = "timm"
    """Where -a is looked up: timm, pytorch (torchvision) or private."""
    teacher_path: str | None = None
    """Weights of those teachers: as for generate."""
    check_crops: int = 512
    """Crops that the teachers are asked about."""
    processes: int = 0
    """Processes that check (0: one per core)."""
    json: bool = field(default=False)
    """Print the result as JSON."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be, before anything is opened."""
        for name, least in (("processes", 0), ("check_crops", 1), ("max_pixels", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)} is below {least}")
        if self.teacher is not None and self.arch is None:
            raise UsageError("--teacher names the images; -a must name the teachers")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StoreConfig):
    """Draw a label set, or several of the same images side by side, as one page for the browser."""

    labels: Positional[tuple[str, ...]]
    """Label sets: folders or URLs, unfinished ones too. With several, teachers are compared; the first leads."""
    output: Annotated[str, arg(aliases=["-o"])] = "report.html"
    """The page to write: one file that loads nothing from anywhere."""
    images: str | None = None
    """The labelled images, for the gallery, where the set does not embed them: what generate was
    given."""
    samples: int = 2000
    """Images to look at, from shards drawn at random; all where the set has no more."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be, before anything is opened."""
        if not self.labels:
            raise UsageError("no label set is given")
        if self.samples < 1:
            raise UsageError(f"--samples {self.samples} is below 1")


def parse_store_options(options: tuple[str, ...]) -> dict[str, str]:
    """key=value texts as a mapping. Raises UsageError where one is not key=value."""
    pairs = [option.partition("=") for option in options]
    for place, (name, equals, _) in enumerate(pairs, 1):
        if not equals or not name:  # it may be a secret, so it is not repeated
            raise UsageError(f"--store-option {place} of {len(pairs)} is not key=value")
    return {name: value for name, _, value in pairs}


def check_share(name: str, share: float | None) -> None:
    """Raise UsageError for a share that is not inside 0..1."""
    if share is not None and not 0 <= share <= 1:
        raise UsageError(f"{name} {share:g} is not inside 0..1")
