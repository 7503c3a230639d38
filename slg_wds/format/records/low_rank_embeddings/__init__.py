"""Low-rank embeddings: the directions of an image's crops as a mean, a basis and a few coefficients for each crop.

`blocks` has the arrays and what they stand for, `codec` makes columns of them.
"""
