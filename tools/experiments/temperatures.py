"""How close labels read at a temperature are to the teacher's own softmax at that temperature.

usage: temperatures.py [--images 16] [--crops 500] [--arch A] [--made-at 1 2] [--read-at 1 2 4 8] [--folder F]

A teacher labels real photographs once. Its distributions at each temperature of --made-at are coded as the labels of
measure_fidelity.py, go through the bytes of records, and are read at each temperature T of --read-at. Printed is, for
each, KL(softmax(z / T) || label) in nats, mean over all crops, where z are the logarithms of the teacher's
probabilities, stored as float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from measure_fidelity import STORES, Store
from students import table
from teacher_labels import add_options, divergences, labelled, working_folder

import slg_wds
from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, default=500)
    parser.add_argument("--made-at", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--read-at", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0])
    add_options(parser)
    options = parser.parse_args()
    with working_folder(options) as folder:
        exact = list(slg_wds.open_labels(labelled(folder, options, options.crops)))
    print(f"{len(exact)} photographs, {options.crops} crops, {options.arch.rpartition(':')[2]}\n")
    with one_blas_thread():
        rows = [
            [store.name, f"{made_at:g}", *measured(exact, store, made_at, options.read_at)]
            for made_at in options.made_at
            for store in STORES
        ]
    print(table(["labels", "made at", *(f"KL at {temperature:g}" for temperature in options.read_at)], rows))


def measured(exact: Sequence[Record], store: Store, made_at: float, read_at: Sequence[float]) -> list[str]:
    """Return the mean KL at each temperature, as text, of labels made at one."""
    pairs = [(record, made(record, store, made_at)) for record in exact]
    found = []
    for temperature in read_at:
        each = [
            divergences(
                record.distribution(temperature=temperature),
                labels.distribution(None, store.rule, temperature),
            )
            for record, labels in pairs
        ]
        found.append(f"{np.mean(each):.4f}")
    return found


def made(record: Record, store: Store, temperature: float) -> Record:
    """Return what is read back of labels that are made at a temperature of a full record."""
    tempered = replace(record, value=record.distribution(temperature=temperature), temperature=temperature)
    return replace(decode_record(encode_record(store.coded(tempered))), temperature=temperature)


if __name__ == "__main__":
    main()
