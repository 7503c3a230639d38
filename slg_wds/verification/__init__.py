"""`slg-wds verify`: checks every byte and label of a set, labels some crops again, repairs damage.

In: a label set, and if the user gives them its images and teachers. Out: a `VerifyResult`, and with --fix a mended
set. This folder may import engines, label sets, images, ensembling's teachers and replay's readers of images.

    verify    the command and its result
    work      shares the shards among processes
    shard     checks one shard; fields and records check its labels, index_parts the index part beside it
    problems  what can be wrong, and what was found in a shard
    images    compares images with those that were labelled
    partners  checks that what is mixed into crops is there
    teacher   compares labels with what the teachers answer now; low_rank and embeddings do so for these kinds
    repair    mends what can be mended
    progress  shows how far a verification is
"""
