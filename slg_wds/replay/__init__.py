"""Label sets and their images -> batches for training: `SoftLabelLoader`.

What enters: label sets at their URLs, and images, embedded or beside them. What leaves: `Batch`es of uint8 crops and
`SoftLabels`, the same for a seed and epoch however many processes and threads make them. `order` says which sample and
crop comes when, `sources` reads records and images, `cache` keeps remote shards on disk, `assembly` cuts crops and
fills batches. May import labelset, images, transforms, labels and all below; never a teacher or an engine's workers.
"""
