"""Samples' places -> the bytes of their records and images, from label shards, folders and tars, local or remote.

What enters: label sets and locations of images. What leaves: bytes that were compared with the index or the record, and
decoded records. May import labelset, images, labels, store and all below, and `cache`.
"""
