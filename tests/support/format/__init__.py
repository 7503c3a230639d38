"""Records, shards and plans to encode, and shards whose bytes are changed under right checksums."""
