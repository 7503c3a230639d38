"""The rules of recovery: stored columns -> distributions, as FORMAT.md defines them, in numpy.

Enters: label types and the columns of records. Leaves: distributions. Imports errors and console alone.

    label_types.py     the names of label types
    rules.py           which rules the stored columns can give
    temperature.py     labels at another temperature than the one they were made at
    distributions.py   the arithmetic; slg_wds.labels repeats it for batches in torch, without rows of C numbers
"""
