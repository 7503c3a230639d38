"""What a training leaves in its folder.

    folder.py         the folder and its files; another training in it is never overwritten
    checkpoints.py    what a run keeps, and how it resumes
    logs.py           summary.csv, TensorBoard, W&B: a row a walk

Enters: settings, figures of walks, all that a run goes on with. Leaves: files.
"""
