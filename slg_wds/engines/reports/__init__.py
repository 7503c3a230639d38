"""What a run says: while it goes, and at its end.

    run_stats.py  counts of what was made, and the interface of observers of a run
    live.py       a display that is updated in place, on a terminal or in a notebook
    progress.py   the progress of a run, on such a display or line by line
    summary.py    the summary at the end

Enters: events of workers. Leaves: lines on stderr and stdout.
"""
