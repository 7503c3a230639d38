"""A label set at a URL: begin it, commit shards to it, finish it, read it; join the sets that extend each other.

Enters: a plan, an identity, the bytes of shards. Leaves: records. Imports format, store and images' folder walk.

    creating.py      begin a set, or join one that was begun
    labelset.py      LabelSet: what exists of a set, and its records
    publishing.py    commit a shard, finish a set
    opening.py       open a set for reading
    objects.py       the names of a set's objects in its store
    lookup.py, key_index.py       one image by its number or key
    combining/       sets that belong together: joined or averaged
    embeddings.py    which embedding is meant, and whose it is
    trailer.py       read by range how a shard was made and what it leaves out
    makers.py        compares how shards were made
    class_names.py, left_out.py, provenance.py, foreign.py
"""
