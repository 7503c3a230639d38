"""The parts of tools/gpu_check.py.

    parts.py      which parts there are, in order of value, and how long each may take
    supervision/  runs each part in a process of its own, and keeps and judges what it finds
    equipment/    what several parts use: the device, models, label sets, loaders
    checks/       parts that prove something: the bits and bytes are right
    rates/        parts that measure something: the machine, generation, the loader, training

parts.py and supervision/ import neither torch nor this package's own code.
"""
