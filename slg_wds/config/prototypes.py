"""Options of `slg-wds prototypes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from slg_wds.config.checks import check_above_zero, check_least, check_seed, flag
from slg_wds.config.command_line import option
from slg_wds.config.shared import StoreConfig
from slg_wds.errors import UsageError

CHECKPOINTS = (".pth", ".pt", ".tar", ".bin", ".ckpt", ".safetensors")


USUAL = 8192  # prototypes
CROPS_EACH = 4  # crops for each prototype, at the least


def number_that_fits(crops: int) -> int:
    """Return how many prototypes to make of so many crops: USUAL, of fewer crops a smaller power of two, at least 2."""
    return min(USUAL, max(2, 1 << (crops // CROPS_EACH).bit_length() >> 1))


@dataclass(frozen=True, kw_only=True)
class BankOptions:
    """Where the bank goes."""

    PANEL: ClassVar[str] = "Output"

    save_path: Annotated[str, option("FILE")]
    """The bank to write, such as bank.safetensors. A file that exists is not replaced: labels may depend on it."""


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How prototypes are made of stored embeddings."""

    PANEL: ClassVar[str] = "Label"

    num_prototypes: Annotated[int | None, option("N", default="none, needed for a SET", short="-k")] = None
    """Prototypes to make: the classes of the labels. 1000 to 65536 are usual."""
    bank_temp: Annotated[float | None, option("T", default="0.04; of a checkpoint, that of its training")] = (
        None
    )
    """Temperature at which prototypes are made to be used evenly. It is the default of the labels' temperature."""
    embedding: Annotated[str | None, option("NAME", default="the only one")] = None
    """Which embedding is used, if the set holds several."""
    samples: Annotated[int | None, option("N", default="50 for each prototype")] = None
    """Most crops to read. They are drawn from all images, or from as many as give 8 crops each."""
    seed: Annotated[int, option("N")] = 0
    """Seed of the crops that are drawn and of the first centres."""


@dataclass(frozen=True, kw_only=True)
class PrototypesConfig(BankOptions, ClusterOptions, StoreConfig):
    """Make a bank of prototypes, over which teachers without classes give labels.

    The prototypes are the centres of clusters of stored embeddings.

    A checkpoint of DINO or DINOv2 gives the bank that its head is.

    Example: slg-wds prototypes /data/dino -k 8192 --save-path bank.safetensors
    """

    source: Annotated[Positional[str], option("SET|CHECKPOINT")]
    """A set of embeddings (generate --output embedding), or a checkpoint of DINO or DINOv2 that has its head: a file
    whose name ends in .pth, .pt, .tar, .bin, .ckpt or .safetensors."""

    @property
    def of_checkpoint(self) -> bool:
        """Whether the source is a checkpoint."""
        return Path(self.source).suffix.lower() in CHECKPOINTS

    def check(self) -> None:
        """Check values against each other and their ranges.

        Raises:
            UsageError: an option has a value that makes no sense. Nothing has been opened by then.
        """
        check_least(self, num_prototypes=2, samples=1)
        check_seed(self.seed)
        check_above_zero(self, "bank_temp")
        for name in ("num_prototypes", "embedding", "samples"):
            if self.of_checkpoint and getattr(self, name) is not None:
                raise UsageError(
                    f"{flag(name)} is for a set of embeddings: the head in a checkpoint is taken whole"
                )
