"""Remote shards and tars of images on local disk, within a bound of bytes."""
