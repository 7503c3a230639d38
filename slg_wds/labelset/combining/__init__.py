"""Label sets that belong together: those that extend each other, and those that are averaged.

Enters: open sets and their records. Leaves: chains of sets, joined records, or why sets do not fit.

    joining.py       which sets extend each other, and how their records are joined
    chain.py         a set and those that extend it, read as one
    averaging.py     which sets may be averaged, and embeddings that are joined side by side
    renumbering.py   the numbers of mixed-in images, from one set's plan to another's
"""
