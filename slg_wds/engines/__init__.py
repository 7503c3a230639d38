"""Where work runs: which shards each worker makes, processes and Ray actors that run one worker loop, progress.

Enters: a task that makes shards, and a label set. Leaves: finished shards and a summary. `ray` alone imports Ray.
Imports label sets, teachers' devices, format and store; never what a task does.
"""
