"""Records and images of samples, from label shards, folders and tars, local or remote."""
