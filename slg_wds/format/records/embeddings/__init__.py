"""Embeddings of crops, as teachers without their heads give them.

    plain.py           a row of numbers for each crop
    low_rank.py        those of an image's crops together: a mean, a basis and a few coefficients for each crop
    by_name.py         the embeddings of a record, of either kind, by their names
    fields.py          what the fields of a record say of them
    codec.py           embeddings <-> columns of a record
    low_rank_codec.py  the same for low-rank ones
    rows.py            those of a few crops of many records, for batches
    cosines.py         how alike embeddings are

Enters: a record's embeddings. Leaves: their fields and columns, and back.
"""
