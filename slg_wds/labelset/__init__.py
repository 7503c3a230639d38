"""A label set at a URL: begin it, commit shards to it, finish it, read it; join the sets that extend each other.

Enters: a plan, an identity, the bytes of shards. Leaves: records. Imports format, store and images.

    creating.py      begin a set, or join one that was begun
    objects.py       the names of a set's objects in its store
    places.py        where commands may write
    stored.py        StoredSet: which of them exist, and what they hold
    publishing.py    commit a shard, finish a set
    labelset.py      LabelSet: a stored set's labels, by iteration, number or key (key_index.py)
    opening.py       open a set for reading
    keyed.py         a set's records by key, in any order, with bounded memory
    combining/       sets that belong together: joined or averaged
    embeddings.py    which embedding is meant, and whose it is
    makers.py        compares how shards were made, all or some of them
    class_names.py, left_out.py, provenance.py, foreign.py
"""
