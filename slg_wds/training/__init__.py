"""`slg-wds train`: train a student on a label set, with FKD's flags and their meaning.

    flags/            the command line, or args.yaml, -> Settings
    command.py        starts and ends a run: processes, errors, exit codes
    faults.py         errors of the device and of the exchange between processes, in one line
    processes.py      which process and device this is; the process group, whose members must agree in flags and labels
    loop.py           walks and validations of a run, on the public loader and loss
    state.py          what the steps of a training change, and how far it is
    step.py           one step: a batch, in pieces if asked, becomes new weights
    data.py           label sets and the loader of a walk
    student.py        the model, and the moving average of its weights
    trial.py          refuses a student that does not take its images, or gives no logits
    distiller.py      students of embeddings: projectors and losses
    optimizer.py      parameter groups, optimizer, clipping
    schedule.py       walks, FKD's learning rates, timm's schedules
    mixing.py         mixup and CutMix of crops and labels
    transfer.py       sends small tensors to the device without a wait
    meter.py          the printed lines; loss, speed and waiting of a walk
    validation/       accuracy on hard targets, agreement with held-out labels, k-NN
    output/           the folder of a run: its checkpoints, and how it resumes; its logs

Enters: label sets and images. Leaves: checkpoints. May import every part but the command line. loop.py, step.py,
data.py, optimizer.py, schedule.py, mixing.py and meter.py use public names alone, those of slg_wds and of its folders:
they are a pattern for a trainer of your own.
"""
