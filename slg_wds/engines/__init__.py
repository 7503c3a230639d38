"""Where work runs: which worker makes which shard, worker processes and Ray actors, progress and summary.

In: a task that makes shards, and the label set to make them for. Out: committed shards, and counts of what was made.
Every engine runs the same loop in its workers: claim a missing shard, make it, commit it, look again. Only `ray`
imports Ray.

May import: labelset, images, labels, teachers (for devices), format, store and all below. Never the modules that
define tasks, such as generation/: they import this one.
"""
