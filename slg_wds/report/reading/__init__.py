"""Reads what a report is about.

    sets.py    label sets, opened together and sampled
    images.py  the labelled images

In: URLs. Out: a sample of images with their records and bytes.
"""
