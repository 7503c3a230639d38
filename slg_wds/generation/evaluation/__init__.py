"""`slg-wds evaluate`: how good teachers and students are on labelled images.

    command.py     the command
    accuracy.py    of those with classes: top-1, top-5 and loss
    embeddings.py  of those without: k-NN and a linear probe
    images.py      batches of images under the teachers' own evaluation transforms

Enters: the options, images with targets. Leaves: figures.
"""

from __future__ import annotations

from slg_wds.generation.evaluation.accuracy import evaluate, figures
from slg_wds.generation.evaluation.command import main
from slg_wds.generation.evaluation.embeddings import EmbeddingScore, evaluate_embeddings

__all__ = ["EmbeddingScore", "evaluate", "evaluate_embeddings", "figures", "main"]
