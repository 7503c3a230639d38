"""Reads what a report is about.

    sets.py    label sets, opened together and sampled
    images.py  the labelled images

Enters: URLs. Leaves: a sample of images with their records and bytes.
"""
