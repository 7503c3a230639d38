"""Sizes of the shards, seed and epoch -> which sample stands where in which batch, and which of its crops.

    shuffled.py       the order of one epoch
    sequential.py     the order without shuffling
    crop_schedule.py  which crops of an image are replayed in which epoch
    permutation.py    keyed permutations, the same on every platform
    fingerprint.py    what an order depends on besides the epoch

Enters: numbers. Leaves: numbers. These are pure functions. May import errors alone.
"""
