"""Records and images <-> the bytes of one shard, a tar.

Enters: records and the bytes of images. Leaves: the bytes of a shard, and back. Imports records.
"""
