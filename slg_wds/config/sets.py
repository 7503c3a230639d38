"""Options of the commands that turn label sets into others: `ensemble`, `import`, `export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from slg_wds.config.shared import (
    EngineConfig,
    SourceConfig,
    StoreConfig,
    Values,
    check_share,
)
from slg_wds.errors import UsageError


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
