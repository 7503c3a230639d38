"""Records and images <-> the bytes of one tar shard. Imports records."""
