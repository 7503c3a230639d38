"""Samples of a batch -> pixels and labels, in threads.

What enters: the batches that an epoch plans, records and image files. What leaves: filled batches, in order. May import
the folders beside it and all that `slg_wds.replay` may.
"""
