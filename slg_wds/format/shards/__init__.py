"""Records and images <-> the bytes of one shard, a tar.

    shard.py    samples <-> the bytes of a shard
    header.py   the trailer: whose shard it is, and checksums
    members.py  members of a tar -> samples
    names.py    paths of images -> keys and names of members
    tar.py      the one form of tar that a shard has

Enters: records and the bytes of images. Leaves: the bytes of a shard, and back. Imports records.
"""
