"""Measures labels.

    measures.py    the labels of one image
    statistics.py  counts over all images
    comparison.py  two sets of the same crops

Enters: records. Leaves: counts, means and histograms in fixed arrays, whatever the number of images.
"""
