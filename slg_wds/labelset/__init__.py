"""A label set at a URL: begin it, commit shards, finish it, read it, join those that extend each other.

Enters: plans, identities, the bytes of shards. Leaves: records. Imports format and store.
"""
