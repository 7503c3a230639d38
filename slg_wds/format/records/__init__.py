"""One image's labels <-> the bytes of one record.

Enters: boxes, flips, classes, probabilities and the tail of an image. Leaves: the bytes of its record, and back.
Imports recovery and the format's JSON, zstd and msgpack.
"""
