"""How a run makes labels: its options, checked and parsed once, before any worker starts."""

from __future__ import annotations

from dataclasses import dataclass

from slg_wds.config import GenerateConfig
from slg_wds.errors import UsageError
from slg_wds.format.records.embeddings.fields import EMBEDDING
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.labels import LabelType, parse_label_type
from slg_wds.transforms.crops import CropRule
from slg_wds.transforms.policies.grammar import parse_views
from slg_wds.transforms.policies.mixing import MixRule
from slg_wds.transforms.policies.rules import ViewRule

TAIL_CLASSES = 64  # unless the options name a number
MAX_KL = 0.1


@dataclass(frozen=True)
class StoredImages:
    """How image files go into the shards.

    Attributes:
        max_side: re-encode images to at most this many pixels a side; None to embed the files as they are.
        quality: of re-encoded JPEGs, 1..100.
    """

    max_side: int | None = None
    quality: int = 90


@dataclass(frozen=True)
class Recipe:
    """The options of a run, with those that are texts parsed. Picklable: every worker of the run gets the same one.

    Attributes:
        config: the options themselves.
        label: the label type; of the kind "embedding" if the teachers' embeddings are stored in place of labels.
        crop_rule: how crops are drawn where no reference gives them.
        view_rule: how it is drawn what else is done to them, without the colours that follow the teacher; None for
            nothing.
        mix_rule: how second views are mixed into crops; None for not at all.
        stored_images: how images go into the shards; None to leave them out.
    """

    config: GenerateConfig
    label: LabelType
    crop_rule: CropRule
    stored_images: StoredImages | None
    view_rule: ViewRule | None = None
    mix_rule: MixRule | None = None

    @classmethod
    def of(cls, config: GenerateConfig) -> Recipe:
        """Parse the options of a run.

        Raises:
            UsageError: a label type or form of embedded images that does not exist, or that contradicts another option.
        """
        mix = MixRule(config.mixup, config.cutmix, config.mixup_prob, config.mixup_switch_prob)
        recipe = cls(
            config=config,
            label=LabelType(EMBEDDING) if config.output == EMBEDDING else parse_label_type(config.label_type),
            crop_rule=CropRule(
                (config.min_scale_crops, config.max_scale_crops), config.ratio, config.flip_prob
            ),
            stored_images=parse_embed_images(config.embed_images),
            view_rule=parse_views(config.aa, config.color_jitter, config.reprob),
            mix_rule=mix if mix.mixes else None,
        )
        recipe._check_tail()
        return recipe

    @property
    def tail_classes(self) -> int:
        """The most classes that a shared tail keeps; 0 where records get no tail."""
        asked = TAIL_CLASSES if self.config.tail_classes is None else self.config.tail_classes
        return asked if self.label.can_have_tail else 0

    @property
    def writes_tail(self) -> bool:
        """Whether records get a shared tail."""
        return self.tail_classes > 0

    @property
    def max_kl(self) -> float | None:
        """The largest mean KL divergence of an image's labels in nats, if they are low-rank."""
        return (self.config.max_kl or MAX_KL) if self.label.kind == LOW_RANK else None

    @property
    def embeds(self) -> bool:
        """Whether the teachers' embeddings are stored in place of labels."""
        return self.label.kind == EMBEDDING

    @property
    def has_classes(self) -> bool:
        """Whether labels are over the teachers' own classes, and so targets may be."""
        return self.config.output == "labels"

    @property
    def needs_all(self) -> bool:
        """Whether all that the teachers answer leaves the device, not only the top-k."""
        return self.label.kind in ("full", LOW_RANK, EMBEDDING)

    @property
    def coding(self) -> str:
        """How probabilities are stored; "none" where the label type stores none."""
        if self.label.kind in (LOW_RANK, EMBEDDING):
            return self.label.kind
        return "none" if self.label.kind == "hard" else self.config.coding

    def _check_tail(self) -> None:
        if self.label.kind == "shared_tail" and not self.writes_tail:
            raise UsageError(f"--label-type {self.label} needs --tail-classes above 0, not 0")
        if self.config.extendable and not self.writes_tail:
            raise UsageError(
                f"--extendable keeps the sums of shared tails, and {self.label} labels have none",
                hint="leave it out: a set without tails can be extended in any case",
            )


def parse_embed_images(text: str | None) -> StoredImages | None:
    """Parse the value of --embed-images: `original`, or `max-side=N[,quality=Q]` with Q in 1..100.

    Raises:
        UsageError: the text is neither.
    """
    if text is None:
        return None
    if text == "original":
        return StoredImages()
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    try:
        numbers = {name: int(value) for name, value in fields.items()}
        images = StoredImages(numbers.pop("max-side"), numbers.pop("quality", 90))
    except (ValueError, KeyError):
        raise UsageError(
            f"--embed-images {text!r} is neither `original` nor `max-side=512[,quality=90]`"
        ) from None
    if numbers or not images.max_side or images.max_side < 1 or not 1 <= images.quality <= 100:
        raise UsageError(f"--embed-images {text!r}: max-side is at least 1, quality 1..100, and nothing else")
    return images
