"""Label set + images -> batches for training: `SoftLabelLoader`.

`order` says which sample and crop comes when, `sources` reads records and images, `cache` keeps remote shards,
`assembly` cuts crops and fills batches. Imports label sets, images, labels; never a teacher or an engine's workers.
"""
