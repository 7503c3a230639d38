"""Low-rank labels: an image's distributions as a mean, a basis and a few coefficients for each crop.

    blocks.py        the arrays, and what they stand for
    codec.py         the arrays <-> the column of a record
    rows.py          a few crops of many records, for batches
    block_tables.py  the means and bases that these crops need, decoded together

Enters: a record's low-rank labels. Leaves: their bytes, and back. The labels are fitted in `labels/low_rank/`.
"""
