"""What this process may use: ranks of launchers, cores, threads, memory; and work begun ahead of need.

Nothing of labels or images enters. Imports errors alone.
"""
