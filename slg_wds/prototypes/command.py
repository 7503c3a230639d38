"""`slg-wds prototypes`: make a bank, write it, and say what comes next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from slg_wds.banks import Bank, DenseLayer, encode_bank
from slg_wds.banks.bank import USUAL_TEMPERATURE
from slg_wds.concurrency.threads import one_thread_of_libraries
from slg_wds.config.prototypes import number_that_fits
from slg_wds.console import counted, note, tell
from slg_wds.errors import UsageError
from slg_wds.labelset.places import output_path
from slg_wds.store.whole_file import whole_file

if TYPE_CHECKING:
    from slg_wds.config.prototypes import PrototypesConfig

SAMPLES_EACH = 50  # crops to read for each prototype


@dataclass(frozen=True)
class MadeBank:
    """A bank that was written.

    Attributes:
        path: of its file.
        bank: the bank.
        crops: crops that it was made of; 0 for the head in a checkpoint.
        in_use: effective number of prototypes that these crops use, before and after the bias; None for a head.
        source: the set that they are of; None for a head.
    """

    path: str
    bank: Bank
    crops: int = 0
    in_use: tuple[float, float] | None = None
    source: str | None = None

    @property
    def summary(self) -> list[str]:
        """Lines that tell a person what was made and what comes next."""
        bank = self.bank
        lines = [f"{self.path}: {bank}, for embeddings of {bank.dim} numbers, SHA-256 {bank.sha256[:12]}"]
        if self.in_use is not None:
            before, after = self.in_use
            lines.append(
                f"  of {counted(self.crops, 'crop')}; at temperature {bank.temperature:g} they use as many prototypes "
                f"as {after:,.1f} of equal share ({before:,.1f} without the bias)"
            )
        elif bank.prototypes.bias is None:
            lines.append("  the checkpoint has no centre, so the bank has no bias")
        given, path = shlex.quote(self.source or "SET"), shlex.quote(self.path)
        return [
            *lines,
            f"next: slg-wds ensemble {given} --bank {path} --save-path LABELS",
            f"  or: slg-wds generate IMAGES -a MODEL --output prototypes --bank {path} --save-path LABELS",
        ]


def make_bank(config: PrototypesConfig) -> MadeBank:
    """Make a bank and write it. If anything fails, nothing is written.

    Args:
        config: the options, as on the command line.

    Raises:
        UsageError: the options do not fit the source, or a file of that name exists.
        MissingDependencyError: scikit-learn is not installed.
        WeightsError: the checkpoint cannot be read, or has no head.
        LabelSetError, FormatError, StoreError: the set cannot be read, or the file not be written.
    """
    config.check()
    target = _target(config.save_path)
    made = _of_checkpoint(config) if config.of_checkpoint else _of_set(config)
    data = encode_bank(made.bank)
    with whole_file(target) as file:
        file.write(data)
    return replace(made, bank=replace(made.bank, sha256=sha256(data).hexdigest()))


def _target(path: str) -> Path:
    target = output_path(path)
    if target.exists():
        raise UsageError(
            "there is a file of this name, and labels may depend on it",
            url=path,
            hint="choose another --save-path",
        )
    if not target.parent.is_dir():
        raise UsageError("there is no such folder to write to", url=str(target.parent))
    return target


def _of_checkpoint(config: PrototypesConfig) -> MadeBank:
    from slg_wds.prototypes.heads import read_head

    return MadeBank(config.save_path, read_head(config.source, config.bank_temp))


def _of_set(config: PrototypesConfig) -> MadeBank:
    from slg_wds.labelset.combining.joining import refuse_extending
    from slg_wds.labelset.embeddings import embedding_of, teacher_of
    from slg_wds.labelset.opening import labels_at
    from slg_wds.prototypes import clusters
    from slg_wds.prototypes.sampling import sample

    clusters.check_installed()
    labels = labels_at(config.at(config.source), embeddings=True)
    name = embedding_of(labels, config.embedding)
    refuse_extending(labels)
    if config.num_prototypes is None:
        fitting = number_that_fits(len(labels) * labels.num_crops)
        raise UsageError("-k is missing", hint=f"say how many prototypes to make, such as -k {fitting}")
    count, temperature = config.num_prototypes, config.bank_temp or USUAL_TEMPERATURE
    unit = clusters.unit_vectors(sample(labels, name, config.samples or SAMPLES_EACH * count, config.seed))
    note(f"{counted(len(unit), 'crop')} of {name} read; looking for {count:,} centres")
    with one_thread_of_libraries():
        found = clusters.centres(unit, count, config.seed)
        note("balancing the use of the prototypes")
        even = DenseLayer(found, clusters.even_bias(unit, found, temperature))
        layers = (DenseLayer(found), even)
        before, after = (
            clusters.effective_number(clusters.mean_use(unit, one, temperature)) for one in layers
        )
    origin = {"set": labels.digest, "embedding": name}
    if weights := teacher_of(labels.identity, name).get("weights_sha256"):
        origin["weights_sha256"] = weights
    bank = Bank(even, unit=True, temperature=temperature, made_from=origin)
    return MadeBank(config.save_path, bank, len(unit), (before, after), config.source)


def main(config: PrototypesConfig) -> int:
    """Run the command, and print a summary to stdout."""
    tell(*make_bank(config).summary)
    return 0
