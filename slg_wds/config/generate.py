"""Options of `generate` and `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, Literal, cast, get_args

from tyro.conf import arg

from slg_wds.config.checks import (
    LOW_RANK,
    check_least,
    check_left_out,
    check_low_rank,
    check_output,
    check_seed,
    flag,
)
from slg_wds.config.command_line import option, required
from slg_wds.config.shared import (
    CompatibilityOptions,
    EngineConfig,
    OutputOptions,
    TeacherConfig,
    Values,
)
from slg_wds.errors import UsageError

GeneratedValues = Literal["float32", "float16", "log8", "int8"]
GENERATED = f"{{{','.join(get_args(GeneratedValues))}}}"
MOST_MIXED = 1 << 16  # records number a partner's crop in two bytes
CPU_NUM_SEG, GPU_NUM_SEG = 50, 256  # a GPU needs more crops at once to be busy


@dataclass(frozen=True, kw_only=True)
class LabelSetOptions(OutputOptions):
    """Where the label set goes, and whether it is written at all."""

    PANEL: ClassVar[str] = "Output"

    save_path: Annotated[str, required("FOLDER|URL", ", except with --dry-run or --evaluate")] = ""
    """Where the label set is written: a folder, or a URL such as s3://bucket/labels. Run the same command again to
    resume."""
    dry_run: bool = False
    """Write nothing. Report what would be done: images, shards, and the bytes and hours that a few measured forwards
    predict, on a GPU also at other precisions. Of a set that was begun, only what it lacks counts. Use it before a long
    run."""
    embed_images: Annotated[str | None, option("FORM", default="the set holds no images")] = None
    """Store the images in the label shards: `original`, or `max-side=512[,quality=90]` to shrink and re-encode them
    before they are labelled. Students then need no other copy of the images."""


@dataclass(frozen=True, kw_only=True)
class CropOptions:
    """Which boxes are cut out of each image."""

    PANEL: ClassVar[str] = "Crop"

    num_crops: Annotated[int, option("N")] = 500
    """Crops of each image. Time and bytes grow in proportion."""
    min_scale_crops: Annotated[float, option("SHARE")] = 0.08
    """Smallest area of a crop, as a share of the image's area."""
    max_scale_crops: Annotated[float, option("SHARE")] = 1.0
    """Largest area of a crop, as a share of the image's area. FKD's code has 0.936, chosen for
    tf_efficientnet_l2_ns_475; give that to match it."""
    ratio: Annotated[tuple[float, float], option("LOW HIGH", default="3/4 to 4/3")] = (3 / 4, 4 / 3)
    """Smallest and largest aspect ratio of a crop: width over height."""
    flip_prob: Annotated[float, option("P")] = 0.5
    """Probability that a crop is flipped from left to right."""
    seed: Annotated[int, option("N")] = 0
    """Seed of the boxes, of the flips, and of the order of images in shards."""
    reference_path: Annotated[str | None, option("SET", default="random crops")] = None
    """Take boxes and flips from this label set, or from this folder of FKD's label files, to label the same crops with
    another teacher. If it has more than --num-crops, the first ones are taken."""
    extend: Annotated[str | None, option("SET")] = None
    """Label only what this set lacks: its crops up to --num-crops, and all crops of new images. What is new goes to
    --save-path. The loader reads both as one set; `slg-wds ensemble OLD NEW --save-path ALL` writes them as one."""


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """What else is done to the pixels of crops. It is recorded, and students see the same pixels."""

    PANEL: ClassVar[str] = "View"

    aa: Annotated[str | None, option("POLICY", default="crops are only cut and flipped")] = None
    """Policy by which operations are drawn for each crop: timm's RandAugment, as in `rand-m9-mstd0.5-inc1`;
    torchvision's, as in `ra-n2-m9`; torchvision's `trivialaugment`; or `3a`, the three augmentations of DeiT III."""
    color_jitter: Annotated[float, option("STRENGTH")] = 0.0
    """Multiply brightness, contrast and saturation, after --aa, by factors drawn from 1 - STRENGTH to 1 + STRENGTH, in
    random order. At most 1; 0 changes nothing."""
    reprob: Annotated[float, option("P")] = 0.0
    """Probability that a box of a crop, 2% to 33% of its area, is erased: filled with the teacher's mean colour."""
    mixup: Annotated[float, option("ALPHA")] = 0.0
    """Blend each crop with one of another image of its shard, with weights drawn from Beta(ALPHA, ALPHA), as timm does.
    The teacher labels the mixed pixels. At most 100; 0 mixes nothing."""
    cutmix: Annotated[float, option("ALPHA")] = 0.0
    """Paste a box of another image's crop into each crop, whose share of the area is drawn from Beta(ALPHA, ALPHA)."""
    mixup_prob: Annotated[float, option("P")] = 1.0
    """Probability that a crop is mixed, by --mixup or --cutmix."""
    mixup_switch_prob: Annotated[float, option("P")] = 0.5
    """Where both are given, the probability of --cutmix; else it is --mixup."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """What is stored of the teacher's answer for each crop."""

    PANEL: ClassVar[str] = "Label"

    output: Literal["labels", "embedding", "prototypes"] = "labels"
    """What of the teacher is stored. labels: its distributions over classes; embedding: the features before its head,
    for teachers without classes (DINOv2, SigLIP, CLIP and the like) and for students that learn to match features;
    prototypes: labels made of the embedding, as distributions over the prototypes of --bank."""
    bank: Annotated[str | None, option("FILE")] = None
    """The bank of --output prototypes: a file that `slg-wds prototypes` made."""
    bank_temp: Annotated[float | None, option("T", default="the bank's own")] = None
    """Temperature of --output prototypes. Scores are divided by it before the softmax."""
    normalize: bool = False
    """Divide each embedding by its length before it is stored."""
    label_type: Annotated[str, option("TYPE")] = "marginal_smoothing_k5"
    """What is stored of each crop. hard: the most probable class; smoothing: also its probability;
    marginal_smoothing_kN, marginal_renorm_kN, shared_tail_kN: the N most probable classes, as in shared_tail_k5; full:
    every class; lowrank: every class, to the error of --max-kl, in fewer bytes than the 5 most probable. The rest is
    spread evenly by smoothing and marginal_smoothing, dropped by marginal_renorm, and spread in proportion to the
    image's shared tail by shared_tail."""
    max_kl: Annotated[float | None, option("NATS", default="0.1")] = None
    """Labels of the type lowrank: the largest mean KL divergence of an image's labels from the teacher's distributions.
    No crop is further off than five times as much. Half of it takes about twice the bytes."""
    min_cosine: Annotated[float | None, option("C")] = None
    """Embeddings: store those of an image together, as a mean, a basis and a few coefficients a crop, so that the mean
    cosine to the teacher's own is at least C. The more crops an image has, the fewer bytes each takes: at 0.99, a third
    of those of int8 with 32 crops, a fifth with 200; at 0.999, two thirds. Single crops may be further off, but
    none by more than four times 1 - C."""
    values: Annotated[GeneratedValues | None, option(GENERATED, default="float16; int8 for embeddings")] = (
        None
    )
    """Coding of the stored numbers. int8 is for embeddings: one byte a number and a scale for each crop. log8 is for
    probabilities, and takes half the bytes of float16 at no measurable loss. It is refused for `full`
    labels over so many classes that it would lose more than 2%."""
    tail_classes: Annotated[int | None, option("N", default="64")] = None
    """Classes stored of each image's shared tail: one vector per image, by which shared_tail_kN spreads the probability
    outside a crop's top N. 0 stores no tail."""
    extendable: bool = False
    """Also store the sums from which each shared tail is computed, about 8 KB per image for 1000 classes. A later
    --extend then gets the same tails as a single run; without the sums, the tails of both parts are averaged."""
    temp: Annotated[float, option("T")] = 1.0
    """Temperature. Logits are divided by it before the softmax."""


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Which devices of this machine work, and how they are given work."""

    PANEL: ClassVar[str] = "Machine"

    devices: Annotated[
        str | None,
        option(
            "LIST", default="all GPUs, or one CPU process; under torchrun and srun, the process's own GPU"
        ),
    ] = None
    """Devices to run on, one process for each: `0,1`, `cuda:0,cuda:2`, or `cpu:N` for N processes without GPU."""
    cuda_graph: Literal["auto", "on", "off"] = "auto"
    """Launch all kernels of a forward at once, as a CUDA graph. auto: where the graph's logits are those of the plain
    forward, bit for bit; on: an error where they are not, or where no graph can be made."""


@dataclass(frozen=True, kw_only=True)
class ActorOptions:
    """What a Ray actor gets."""

    PANEL: ClassVar[str] = "Ray"

    gpus_per_actor: Annotated[float | None, option("GPUS", default="1, or 0 if the cluster has no GPU")] = (
        None
    )
    """GPUs of each Ray actor; 0.5 puts two actors on one GPU."""


@dataclass(frozen=True, kw_only=True)
class OriginalOptions(CompatibilityOptions):
    """Flags of FKD's generate_soft_label.py."""

    PANEL: ClassVar[str] = "FKD compatibility"

    use_fp16: bool = False
    """The same as --values float16."""
    evaluate: Annotated[bool, arg(aliases=["-e"])] = False
    """Write nothing. Report the teacher's accuracy on IMAGES/val, as `slg-wds evaluate` does."""


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(
    LabelSetOptions,
    CropOptions,
    ViewOptions,
    LabelOptions,
    DeviceOptions,
    OriginalOptions,
    TeacherConfig,
    EngineConfig,
    ActorOptions,
):
    """Label many random crops of every image with a teacher.

    The result is a label set: WebDataset shards that replay these crops.

    Example: slg-wds generate /data/imagenet -a resnet50 --save-path /data/labels
    """

    def check(self) -> None:
        """Check values against each other and their ranges.

        Raises:
            UsageError: an option has a value that makes no sense. Nothing slow has been started by then.
        """
        super().check()
        self.check_engine()
        self._check_devices()
        self._check_crops()
        check_least(self, samples_per_shard=1, tail_classes=0)
        check_left_out(self)
        check_low_rank(self)
        check_output(self)
        if self.use_fp16 and self.values not in (None, "float16"):
            raise UsageError(f"--use-fp16 contradicts --values {self.values}")
        if self.dry_run and self.evaluate:
            raise UsageError("--dry-run and --evaluate ask for two different things", hint="give one of them")
        if not self.save_path and not (self.dry_run or self.evaluate):
            raise UsageError("--save-path is missing", hint="say where the label set goes")

    def _check_devices(self) -> None:
        if self.engine == "ray" and (self.devices is not None or self.gpu is not None):
            raise UsageError("--devices and --gpu are for --engine local", hint="see --gpus-per-actor")
        if self.engine != "ray" and self.gpus_per_actor is not None:
            raise UsageError("--gpus-per-actor is for --engine ray")
        if self.gpus_per_actor is not None and not 0 <= self.gpus_per_actor < 1 << 10:
            raise UsageError(f"--gpus-per-actor {self.gpus_per_actor:g} is not a number of GPUs")

    def _check_crops(self) -> None:
        check_least(self, num_crops=1)
        if self.num_crops > 1_000_000:
            raise UsageError(f"--num-crops {self.num_crops} is above 1,000,000")
        if not 0 < self.temp < float("inf"):
            raise UsageError(f"--temp {self.temp:g} is not positive")
        check_seed(self.seed)
        self._check_mixing()
        given = [flag for flag, used in self.views_given.items() if used]
        if self.reference_path is not None and given:
            raise UsageError(
                f"{given[0]} draws views, and --reference-path takes crops as they are recorded",
                hint="leave out one of the two",
            )

    @property
    def views_given(self) -> dict[str, bool]:
        """Which options of views are used, by their names on the command line."""
        return {
            "--aa": self.aa is not None,
            "--color-jitter": self.color_jitter != 0,
            "--reprob": self.reprob != 0,
            "--mixup": self.mixup != 0,
            "--cutmix": self.cutmix != 0,
        }

    def _check_mixing(self) -> None:
        mixed = self.mixup != 0 or self.cutmix != 0
        if self.mixup_prob != 1 and not mixed:
            raise UsageError("--mixup-prob is for --mixup or --cutmix", hint="give one of them")
        if self.mixup_switch_prob != 0.5 and not (self.mixup and self.cutmix):
            raise UsageError("--mixup-switch-prob is for --mixup together with --cutmix", hint="give both")
        if mixed and self.num_crops > MOST_MIXED:
            raise UsageError(f"--num-crops {self.num_crops} is above {MOST_MIXED:,}, the most of mixed crops")

    def crops_of_forward(self, device: str) -> int:
        """Return how many crops one forward has on a device, such as "cpu" or "cuda:1"."""
        return self.num_seg or (CPU_NUM_SEG if device == "cpu" else GPU_NUM_SEG)

    @property
    def coding(self) -> Values:
        """The coding of probabilities: the one asked for, or float16."""
        return cast(Values, self.values or "float16")

    @property
    def embedding_values(self) -> str:
        """The coding of embeddings: the one asked for, or int8."""
        if self.min_cosine is not None:
            return LOW_RANK
        return self.values or ("float16" if self.use_fp16 else "int8")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TeacherConfig):
    """Measure a teacher on labelled images: top-1, top-5 and loss.

    Images are resized and cropped as in the evaluation of the teacher's authors.

    Example: slg-wds evaluate /data/imagenet -a resnet50
    """

    output: Literal["labels", "embedding"] = "labels"
    """What is measured. labels: distributions over classes; embedding: the features before the head, of teachers
    without classes and of students trained on embeddings. IMAGES then has train, to learn classes from, and val."""
    train_images: Annotated[int | None, option("N", default="all")] = None
    """With --output embedding: at most so many images of train, drawn at random, always the same."""
    linear: bool = True
    """With --output embedding: whether a linear classifier is fitted too, which takes long on many images. --no-linear
    leaves it out."""
    json: bool = False
    """Print the result as JSON, for scripts."""

    def check(self) -> None:
        """Check values against each other and their ranges.

        Raises:
            UsageError: an option has a value that makes no sense. Nothing slow has been started by then.
        """
        super().check()
        check_least(self, train_images=1)
        usual = {one.name: one.default for one in fields(self)}
        embeds = self.output == "embedding"
        for name in ("weights", "class_subset", "class_map") if embeds else ("train_images", "linear"):
            if getattr(self, name) != usual[name]:
                kind = "labels" if embeds else "embedding"
                raise UsageError(f"{flag(name)} is for --output {kind}")

    @property
    def images_of_forward(self) -> int:
        """How many images one forward has."""
        return self.num_seg or CPU_NUM_SEG

    @property
    def normalize(self) -> bool:
        """Whether embeddings are divided by their length; what is measured does not need it."""
        return False
