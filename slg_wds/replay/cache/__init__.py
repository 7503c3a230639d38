"""Remote label shards and tars of images -> files on the local disk, within a bound of bytes.

    caches.py       the caches of a loader, and how they share the bytes of their directory
    shard_cache.py  the files of one label set, downloaded ahead of their use
    downloads.py    one download at a time, whole and checked
    directory.py    the files within a number of bytes, shared by the processes of a machine

Enters: stores and which shard is needed when. Leaves: paths of files whose bytes were checked. May import labelset and
all below, and `order` for its types.
"""
