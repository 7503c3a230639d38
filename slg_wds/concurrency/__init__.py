"""What this process may use: its rank under a launcher, CPU cores, threads and memory; and starting work early.

In: environment variables, the system's limits. Out: numbers, ranks, thread pools. Knows nothing of labels and images.

May import: errors. torch is imported only inside the functions that need it.
"""
