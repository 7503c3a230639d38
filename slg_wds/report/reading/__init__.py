"""Reads what a report is about. In: URLs. Out: a sample of images with their records and bytes."""
