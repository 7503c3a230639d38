"""Parts that prove something.

forwards.py  bits of forwards: graphs, cast weights, precisions
sets.py      bytes of label sets
batches.py   what the loader hands over
commands.py  evaluate, verify and dry runs
resuming.py  weights of trainings that are repeated and resumed
faults.py    errors of the device
"""
