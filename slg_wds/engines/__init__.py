"""Where work runs: which worker makes which shard, worker processes and Ray actors, progress and summary.

    claims.py      which shards a worker makes, and who finishes the set
    committing.py  the end of a worker's loop: a shard is committed, counted, reported
    commands.py    what the commands that make a set share: run, finish, summary
    dispatch.py    the engine that the options name, for tasks that need only CPUs
    devices.py     which devices this machine's workers use
    local.py       the engine of this machine's processes
    ray.py         the engine of a Ray cluster's actors
    workers/       how workers start, what they send, what happens when one ends
    reports/       progress and summary

Enters: a task that makes shards, and the label set to make them for. Leaves: committed shards, and counts of what was
made. Every engine runs the same loop in its workers: claim a missing shard, make it, commit it, look again. Only `ray`
imports Ray.

May import: labelset, images, labels, teachers (for devices), format, store and all below. Never the modules that
define tasks, such as generation/: they import this one.
"""
