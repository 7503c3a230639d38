"""`slg-wds train`: train a student on a label set, with FKD's flags and their meaning.

    flags.py          the command line -> Settings
    command.py        starts and ends a run: processes, errors, exit codes
    processes.py      which process and device this is; the process group
    loop.py           walks, steps and validations of a run, on the public loader and loss
    data.py           label sets and the loader of a walk
    student.py        the model, its optimizer and the moving average of its weights
    schedule.py       FKD's epochs and learning rates
    mixing.py         mixup and CutMix of crops and labels
    meter.py          the printed lines
    validation.py     accuracy on hard targets, agreement with held-out labels
    checkpoints.py    what a run keeps, and how it resumes

Enters: label sets and images. Leaves: checkpoints. May import every part but the command line. loop.py, data.py,
schedule.py, mixing.py and meter.py use public names alone, those of slg_wds and of its folders: they are a pattern for
a trainer of your own.
"""
