"""Options of the commands that turn labels into other labels: `ensemble`, `import`, `export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional

from slg_wds.config.checks import (
    check_above_zero,
    check_at_once,
    check_bank,
    check_least,
    check_left_out,
    check_low_rank,
    check_seed,
    check_targets,
)
from slg_wds.config.command_line import option, required
from slg_wds.config.shared import (
    VALUES,
    EngineConfig,
    OutputOptions,
    ProcessOptions,
    RecheckOptions,
    SourceConfig,
    StoreConfig,
    Values,
)
from slg_wds.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class MergedSetOptions:
    """Which sets are merged, and where the result goes."""

    PANEL: ClassVar[str] = "Output"

    sets: Annotated[Positional[tuple[str, ...]], required("SET ...")]
    """Finished label sets of the same images and crops. Their shards and the order of images may differ."""
    save_path: Annotated[str, option("FOLDER|URL")]
    """Where the merged set is written: a folder or URL. Run the same command again to resume."""
    samples_per_shard: Annotated[int | None, option("N", default="the first set's shards")] = None
    """Images in a shard."""


@dataclass(frozen=True, kw_only=True)
class MergedLabelOptions:
    """How the sets are weighted, and what is stored of their mean."""

    PANEL: ClassVar[str] = "Label"

    weights: Annotated[tuple[float, ...] | None, option("WEIGHT ...", default="equal")] = None
    """Weight of each set in the mean."""
    label_type: Annotated[str | None, option("TYPE", default="the first set's")] = None
    """What is stored of each crop, as for `generate`."""
    values: Annotated[Values | None, option(VALUES, default="the first set's")] = None
    """Coding of the probabilities."""
    tail_classes: Annotated[int | None, option("N", default="the first set's")] = None
    """Classes stored of each image's shared tail, as for `generate`; 0 stores no tail."""
    max_kl: Annotated[float | None, option("NATS", default="the first set's, else 0.1")] = None
    """Labels of the type lowrank: the largest mean KL divergence of an image's labels from the exact mean of the sets'
    labels."""


@dataclass(frozen=True, kw_only=True)
class PrototypeOptions:
    """How embeddings become labels."""

    PANEL: ClassVar[str] = "Label"

    bank: Annotated[str | None, option("FILE")] = None
    """Make labels of a set of embeddings, without its teacher: distributions over the prototypes of this bank. `slg-wds
    prototypes` makes one."""
    bank_temp: Annotated[float | None, option("T", default="the bank's own")] = None
    """Temperature of these labels. Scores are divided by it before the softmax."""
    embedding: Annotated[str | None, option("NAME", default="the bank's own, or the only one")] = None
    """Which embedding is used, if the set holds several."""


@dataclass(frozen=True, kw_only=True)
class MergedCheckOptions:
    """The images on which a merge is compared with the teachers themselves."""

    PANEL: ClassVar[str] = "Check"

    check_data: Annotated[str | None, option("IMAGES", name="check")] = None
    """Label a random sample of these images again with the teachers given with -a, and report how far the merged
    labels differ from theirs."""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig(
    MergedSetOptions,
    MergedLabelOptions,
    PrototypeOptions,
    MergedCheckOptions,
    RecheckOptions,
    ProcessOptions,
    EngineConfig,
    StoreConfig,
):
    """Merge label sets of the same crops: the weighted mean of their labels.

    Embeddings of several teachers are joined: they stand side by side.

    Given one set, it writes that set anew, with other shards, label type or coding.

    A set and one that extends it (generate --extend) become one set.

    With --bank, a set of embeddings becomes a set of labels.

    Example: slg-wds ensemble /data/a /data/b --save-path /data/both
    """

    def check(self) -> None:
        """Check values against each other and their ranges.

        Raises:
            UsageError: an option has a value that makes no sense. No set has been opened by then.
        """
        self.check_engine()
        if not self.sets:
            raise UsageError("no label set is given")
        check_least(self, samples_per_shard=1, tail_classes=0, check_crops=1)
        check_at_once(self, processes=0)
        check_low_rank(self)
        check_bank(self, self.bank is not None, "--bank")
        if self.embedding is not None and self.bank is None:
            raise UsageError("--embedding is for --bank")
        if (self.check_data is None) != (self.arch is None):
            raise UsageError("--check and -a go together: the images, and the teachers to ask")


@dataclass(frozen=True, kw_only=True)
class LabelFileOptions:
    """How FKD's label files are read."""

    PANEL: ClassVar[str] = "Label"

    fkd_dir: Annotated[Positional[str], option("LABEL_FILES")]
    """Folder of label files, made by FKD's generator or downloaded: .../train/CLASS/NAME.tar."""
    label_type: Annotated[str | None, option("TYPE", default="as the files' shape says")] = None
    """Label type of the files. Give it for marginal_renorm_kN, whose files have the same shape as those of
    marginal_smoothing_kN."""
    values: Annotated[Values | None, option(VALUES, default="that of the files, which is exact")] = None
    """Coding of the probabilities. FKD's files have float32, or float16 if made with --use_fp16."""
    num_classes: Annotated[int | None, option("N", default="ImageNet's 1000")] = None
    """Classes of the teacher. Label files do not say it, unless they hold every class."""
    temp: Annotated[float | None, option("T", default="not known")] = None
    """Temperature that the labels were made at, the --temp of FKD's generator, whose default is 1. Label files do not
    say it. It is noted, so that labels can be read at another one; no label is changed."""
    seed: Annotated[int, option("N")] = 0
    """Seed of the order of images in shards."""


@dataclass(frozen=True, kw_only=True)
class LabelledImageOptions:
    """Which images the label files belong to."""

    PANEL: ClassVar[str] = "Image"

    images: Annotated[str, option("IMAGES")]
    """The images that were labelled: a folder of class folders, or one with a train folder of them."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig(
    OutputOptions, LabelFileOptions, LabelledImageOptions, SourceConfig, ProcessOptions, EngineConfig
):
    """Turn label files of FKD (Fast Knowledge Distillation) into a label set.

    Example: slg-wds import FKD_LABELS --images /data/imagenet --save-path /labels
    """

    @property
    def classes(self) -> int:
        """How many classes the labels are over."""
        return 1000 if self.num_classes is None else self.num_classes

    def check(self) -> None:
        """Check values against each other and their ranges.

        Raises:
            UsageError: an option has a value that makes no sense. Nothing slow has been started by then.
        """
        self.check_engine()
        if not 1 <= self.classes <= 1 << 24:
            raise UsageError(f"--num-classes {self.num_classes} is not inside 1..{1 << 24}")
        check_seed(self.seed)
        check_above_zero(self, "temp")
        check_least(self, samples_per_shard=1)
        check_at_once(self, processes=0)
        check_left_out(self)
        check_targets(self)


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StoreConfig):
    """Turn a label set into label files for the training scripts of FKD and MEAL V2.

    Example: slg-wds export /data/labels FKD_LABELS
    """

    labels: Annotated[Positional[str], option("SET")]
    """The label set: a folder or URL."""
    fkd_dir: Annotated[Positional[str], option("LABEL_FILES")]
    """Folder to write the label files to. It is created; if it exists, it must be empty."""
    layout: Literal["fkd", "mealv2"] = "fkd"
    """Where the files go: `fkd` writes train/CLASS/NAME.tar, for train_FKD.py; `mealv2` writes
    DATASET/train/CLASS/NAME.tar, for MEAL V2's FKD_train.py."""
    dataset: Annotated[str | None, option("NAME", default="that of the labelled images")] = None
    """DATASET in the layout mealv2: the name of the folder that holds train."""
    use_fp16: bool = False
    """Write coordinates and labels as float16, as FKD's --use_fp16 does. It halves the files."""
