"""Sizes of the shards, seed and epoch -> which sample stands where in which batch, and which of its crops.

Pure functions: nothing is read. May import errors alone.
"""
