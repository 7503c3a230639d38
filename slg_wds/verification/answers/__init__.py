"""What the teachers of a set answer now, about a sample of its crops.

    asking.py       loads the teachers that a set names, and asks them
    mixed_views.py  shows them crops that others are mixed into
    teacher.py      compares stored labels with their answers; low_rank and embeddings do so for these kinds

Enters: a label set, its images, and teachers that the user named. Leaves: records of the sample with the teachers' own
distributions or embeddings, and what is wrong with the stored ones. `slg-wds verify -a` and `slg-wds ensemble --check`
ask here.
"""
