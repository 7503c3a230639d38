"""`slg-wds verify`: checks every byte and label of a set, labels some crops again, repairs damage.

Enters: a label set, and if the user gives them its images and teachers. Leaves: a `VerifyResult`, and with --fix a
mended set. This folder may import engines, label sets, images, teachers and replay's readers of images.

    verify.py    the command and its result
    work.py      shares the shards among processes
    shard.py     checks one shard; fields and records check its labels, index_parts the index part beside it
    problems.py  what can be wrong, and what was found in a shard
    images.py    compares images with those that were labelled
    partners.py  checks that what is mixed into crops is there
    answers/     compares labels with what the teachers answer now
    repair.py    mends what can be mended
    progress.py  shows how far a verification is
"""
