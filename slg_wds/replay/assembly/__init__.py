"""Samples of a batch -> pixels and labels, in threads. Enters: an order and sources. Leaves: filled batches."""
