"""Label sets and their images -> batches for training: `SoftLabelLoader`.

    loader.py                   SoftLabelLoader
    settings.py                 what its caller chose, checked; crop_input.py and temperature.py, the rest of it
    batch_maker.py              makes the batches of an epoch, in threads and processes
    batch.py                    what it yields; pairs.py has batches of two tensors
    device.py                   batches on the training device
    state.py                    what a checkpoint keeps of a loader
    ranks.py, process.py        which rank this is, and the one process that a loader serves
    stages.py, mixed_stage.py   the same batches from a stock WebDataset pipeline, whose samples samples.py reads;
                                shared_number.py tells its workers the epoch
    order/                      which sample and which crop comes when
    sources/                    records and images
    cache/                      remote shards on the local disk
    assembly/                   crops are cut and batches filled
    processes/                  the same in other processes

Enters: label sets at their URLs, and images, embedded or beside them. Leaves: `Batch`es of uint8 crops and
`SoftLabels`, the same for a seed and epoch however many processes and threads make them. May import labelset, images,
transforms, labels and all below; never a teacher or an engine's workers.
"""
