"""Remote label shards and tars of images -> files on the local disk, within a bound of bytes.

What enters: stores and which shard is needed when. What leaves: paths of files whose bytes were checked. May import
labelset and all below, and `order` for its types.
"""
