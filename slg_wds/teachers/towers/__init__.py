"""Towers: teachers that give embeddings of crops, not logits over classes.

    headless.py      a classifier without its head: what its last layer would have read
    towers.py        one tower or several, on the same crops
    prototypes.py    one tower and a bank, which gives distributions
    neighbours.py    how good embeddings are: k-NN accuracy
    linear_probe.py  the same, by a linear classifier

Enters: a model, uint8 crops. Leaves: embeddings [N, D] of each, or distributions [N, K].
"""
