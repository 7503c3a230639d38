"""What this process may use: its rank under a launcher, CPU cores, threads and memory; and starting work early.

    rank.py             the rank that a launcher gave this process
    process_group.py    the rank in torch.distributed, and how many processes share this machine
    cores.py            the CPU cores that it may use
    threads.py          how many threads torch and numpy use in a thread of this package
    memory.py           keeps freed memory in the process
    locks.py            locks by number
    waiting.py          waits that do not count a stop of the process
    prefetch.py         work that starts ahead of its use
    devices.py          the device that a caller names, if it is there
    copy_stream.py      copies to a GPU while it computes

Enters: environment variables, the system's limits. Leaves: numbers, ranks, thread pools. Knows nothing of labels and
images.

May import: errors and console. torch is imported only inside the functions that need it.
"""
