"""Parts that measure something.

machine.py     what the machine is
generation.py  generation, against the bare forward
replay.py      the loader alone
training.py    the step of slg-wds train; it also proves that no step makes the host wait
simulation.py  what simulate_gpu.py says of the machine
"""
