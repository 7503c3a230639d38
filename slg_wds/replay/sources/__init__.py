"""Samples' places -> the bytes of their records and images, from label shards, folders and tars, local or remote.

    label_sets.py  the sets of a loader, and where each sample lies in them
    records.py     the labels of samples, from all sets
    base_set.py    where they lie in a set that another one extends
    shards.py      ranges of label shards, compared with the index
    images.py      images inside the label shards, or outside
    external.py    images in folders and tars
    files.py       ranges of local files; page_cache.py reads what the kernel has in memory

Enters: label sets and locations of images. Leaves: bytes that were compared with the index or the record, and decoded
records. May import labelset, images, labels, store and all below, and `cache`.
"""
