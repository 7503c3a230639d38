"""Stored embeddings, or a released head -> a bank: `slg-wds prototypes`.

    command.py   the command: make a bank, write it, and say what comes next
    sampling.py  a set of embeddings -> a sample of its crops
    clusters.py  a sample -> centres of clusters, and a bias by which they are used evenly
    heads.py     a checkpoint of DINO or DINOv2 -> the bank that its head is

Enters: the options. Leaves: the file of a bank. It may import `engines/` (progress) and every folder below.
"""
