"""Label files of other programs <-> label sets. Each program has a folder here, with its codec and its commands.

    fkd/        the label files of the original FKD, which MEAL V2 reads too: `slg-wds import` and `slg-wds export`
    pickles.py  read arrays from a pickle without running it; for every program that saves with torch

Enters: files of other programs, or a label set. Leaves: a label set, or such files. It may import `engines/` and every
folder below that. Nothing that is read from another program's file is executed.
"""
