"""Images -> crops -> teacher -> labels -> records -> shards: `slg-wds generate` and `evaluate`.

    recipe.py       the options of a run, checked and parsed once
    command.py      the command and the call from Python: start workers, then print the summary
    setup.py        recipe -> job: images, reference and teachers opened, the label set begun or joined
    job.py          what one worker has open
    other_code.py   warns where the code of private teachers is not what made the shards there
    description.py  what slg.json says of a run: identity and provenance
    reference.py    crops taken from another label set, or from FKD's label files
    extension.py    only the crops that an existing label set lacks
    worker.py       the worker loop
    read_ahead.py   begin reads early where a source is slow
    opening.py      one image read, checked and decoded, its crops drawn
    decoding.py     read and decode images in threads, and draw their crops
    batching.py     cut crops of several images into full forwards
    inference.py    forwards -> top-k and tail sums
    collation.py    top-k of an image's crops -> record -> sample
    evaluation/     `slg-wds evaluate`: accuracy of teachers with classes, and of embeddings
    dry_run/        `--dry-run`: what a run would do

Enters: the options, an image source, teachers. Leaves: committed shards of a label set. It may import `engines/` and
every folder below that, and the label files of other programs from `interop/`.
"""
