"""Batches made in other processes, where the threads of one would wait for its interpreter.

    loader_processes.py    the loader's side: which process makes which batch, and the end of a process
    program.py             the other side: what such a process runs
    messages.py            what the two say to each other
    shared_images.py       memory of images that both see

Enters: the batches that an epoch plans. Leaves: the same batches as without processes. Only what can be read from local
disks goes to a process; the loader's own threads make the rest. May import `assembly`, `sources`, `cache` and all that
these may.
"""
