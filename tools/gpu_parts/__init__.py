"""The parts of tools/gpu_check.py.

    parts.py       which parts there are, in order of value, and how long each may take
    bars.py        what has to be reached, and what was predicted
    supervise.py   runs each part in a process of its own, and reports whatever happens to it
    child.py       that process
    findings.py    what a part found, kept on disk while it goes on
    check.py       what parts with a network share: device, sizes, photographs, runs
    machine.py     what the machine is
    forwards.py    bits of forwards: graphs, cast weights, precisions
    sets.py        bytes of label sets
    batches.py     what the loader hands over
    generation.py  rates of generation
    replay.py      rates of the loader
    training.py    the training step of slg-wds train
    resuming.py    weights of trainings that are repeated and resumed
    simulation.py  what simulate_gpu.py says of the machine
    faults.py      errors of the device

parts.py, bars.py, supervise.py and findings.py import neither torch nor this package's own code.
"""
