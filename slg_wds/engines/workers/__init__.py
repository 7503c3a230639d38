"""The workers of a run, as processes or as actors: how they start, what they send, what is done when one ends.

    pool.py        how many workers, on which devices; what each does, and the messages that it sends
    processes.py   workers as processes of this machine
    resources.py   how the nodes of a Ray cluster are divided among actors
    supervisor.py  what the run knows of its workers, and whether one that ended is replaced

Enters: a task. Leaves: what workers made or failed at. `local.py` and `ray.py` are the engines on top.
"""
