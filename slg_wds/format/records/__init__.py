"""One image's labels <-> the bytes of one record.

    record.py          the labels of an image, as arrays
    encoding.py        a record -> its bytes
    decoding.py        its bytes -> the record, or some of its crops
    rows.py            a few crops of many records at once, for batches; with joined_columns.py
    shape.py           which fields, lists and maps the bytes may be; checks.py what must hold for every record
    columns.py         numbers <-> columns
    values.py          probabilities <-> the numbers that are stored for them
    tail.py            the shared tail; tail_sums.py has what it is made of
    views.py           what is done to the pixels of crops; mixing.py has second views
    low_rank/          low-rank labels; rice.py codes their integers
    embeddings/        embeddings of crops

Enters: boxes, flips, classes, probabilities and the tail of an image. Leaves: the bytes of its record, and back.
Imports recovery and the format's JSON, zstd and msgpack.
"""
