"""How far are labels over prototypes, made of stored int8 embeddings, from those of the live teacher?

usage: prototypes.py [--crops 60] [--views 6] [--prototypes 64 256 1024]

EfficientNet-Lite0 without its head embeds crops of the demo's photographs, 6 of them x VIEWS. They are stored as int8
and as float32. Banks are made of the int8 set. At several temperatures, KL(live || stored) in nats is printed, where
live is the bank's distribution of the float32 embeddings; and how many prototypes are in use, at the temperature at
which the bank was balanced. At the last, `slg-wds generate --output prototypes` and `slg-wds ensemble --bank` make both
sets of full labels for one bank, and these are compared too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from teacher_labels import TOWER, divergences, generated, working_folder

import slg_wds
from slg_wds.banks import read_bank
from slg_wds.banks.head import BankHead
from slg_wds.config import PrototypesConfig
from slg_wds.demo.photographs import VIEWS, write_photographs
from slg_wds.prototypes.command import MadeBank, make_bank

TEMPERATURES = (0.04, 0.07, 0.1, 0.2)
BALANCED_AT = 0.1
COMPARED = 256  # prototypes of the bank with which the commands are compared


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, default=60)
    parser.add_argument("--views", type=int, default=len(VIEWS), help="of each photograph")
    parser.add_argument("--prototypes", type=int, nargs="+", default=[64, COMPARED, 1024])
    args = parser.parse_args()
    with working_folder(args) as folder:
        experiment(args, folder)


def experiment(args: argparse.Namespace, folder: Path) -> None:
    write_photographs(folder / "images", VIEWS[: args.views])
    for values in ("int8", "float32"):
        label_set(args, folder, values, output="embedding", values=values)
    stored, live = vectors(folder / "int8"), vectors(folder / "float32")
    print(f"{len(stored)} crops of {args.views} views of each photograph")
    for count in args.prototypes:
        bank = make_bank(
            PrototypesConfig(
                source=str(folder / "int8"),
                num_prototypes=count,
                bank_temp=BALANCED_AT,
                save_path=str(folder / f"bank-{count}"),
            )
        )
        print(row(bank, stored, live))
    if COMPARED in args.prototypes:
        print(
            f"by the commands, at {BALANCED_AT}:",
            by_the_commands(args, folder, str(folder / f"bank-{COMPARED}")),
        )


def label_set(args: argparse.Namespace, folder: Path, name: str, **more: object) -> slg_wds.LabelSet:
    return slg_wds.open_labels(generated(folder / "images", folder / name, TOWER, args.crops, **more))


def vectors(place: Path) -> torch.Tensor:
    rows = [one.vectors for record in slg_wds.open_labels(str(place)) for one in record.embeddings.values()]
    return torch.from_numpy(np.concatenate(rows))


def row(made: MadeBank, stored: torch.Tensor, live: torch.Tensor) -> str:
    before, after = made.in_use or (0.0, 0.0)
    cells = [f"{made.bank.size} prototypes, {before:.1f} in use without the bias, {after:.1f} with it"]
    bank = read_bank(made.path)
    for temperature in TEMPERATURES:
        exact, found = (BankHead(bank, temperature).probabilities(one).numpy() for one in (live, stored))
        kl = divergences(exact, found)
        cells.append(
            f"at {temperature}: mean KL {kl.mean():.6f}, worst crop {kl.max():.5f}, "
            f"top-1 {exact.max(axis=1).mean():.3f}"
        )
    return "; ".join(cells)


def by_the_commands(args: argparse.Namespace, folder: Path, bank: str) -> str:
    live = label_set(
        args, folder, "live", output="prototypes", bank=bank, label_type="full", values="float32"
    )
    slg_wds.ensemble(
        slg_wds.EnsembleConfig(
            sets=(str(folder / "int8"),), save_path=str(folder / "stored"), bank=bank, label_type="full",
            values="float32",
        )
    )  # fmt: skip
    pairs = zip(live, slg_wds.open_labels(str(folder / "stored")), strict=True)
    kl = np.concatenate([divergences(a.value, b.value) for a, b in pairs])
    return f"mean KL {kl.mean():.6f}, worst crop {kl.max():.5f}, {len(kl)} crops"


if __name__ == "__main__":
    main()
