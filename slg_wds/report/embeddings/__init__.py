"""Reports of sets of embeddings.

    measuring.py  how alike an image's crops are, which images are alike, and their principal components
    figures.py    figures of these
    document.py   the page

Enters: the opened sets and their sample. Leaves: the page's HTML. It has no script.
"""
