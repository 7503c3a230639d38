"""Policies: how the operations and erased boxes of views are drawn. What is drawn is recorded; policies are not.

    drawing.py      seed, key and policy -> views
    mixing.py       seed, key, rule and shard -> which second view is mixed into each crop
    beta.py         the Beta distribution of its weights
    rules.py        what a policy consists of
    grammar.py      the texts of --aa
    libraries.py    the policies of timm, torchvision and DeiT III

Enters: the options of views; seed and keys. Leaves: Views.

Views are pure functions of (seed, key, policy, crop number). They use other counters of Philox than boxes and flips do.
"""
