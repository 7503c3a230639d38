"""Options of `generate` and `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import arg

from slg_wds.config.shared import (
    EngineConfig,
    TeacherConfig,
    Values,
    check_share,
)
from slg_wds.errors import UsageError


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
