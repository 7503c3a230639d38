"""What a training leaves in its folder.

    folder.py    the folder and its files; another training in it is never overwritten
    logs.py      summary.csv, TensorBoard, W&B: a row a walk

Enters: settings, figures of walks. Leaves: files. `checkpoints.py` writes the largest of them.
"""
