"""k-NN accuracy of embeddings, by DINO's weighted vote.

The vote is that of Wu et al. (2018, arXiv 1805.01978, section 3.4) with the settings of DINO (Caron et al. 2021, arXiv
2104.14294, `eval_knn.py`): each of the k images nearest by cosine votes for its class with the weight exp(cosine / T).

Shapes: N images of train, Q of val, D numbers of an embedding, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

KS = (20, 10)  # neighbours; DINO's own choice first
TEMPERATURE = 0.07
MOST = 1 << 25  # cosines computed at once


def accuracy_of_neighbours(
    embeddings: torch.Tensor,
    classes: torch.Tensor,
    queries: torch.Tensor,
    targets: torch.Tensor,
    ks: Sequence[int] = KS,
) -> dict[int, float]:
    """Return the top-1 accuracy of the vote, 0..1, for each number of neighbours.

    Args:
        embeddings: of the images of train, float [N, D].
        classes: of these, int64 [N].
        queries: embeddings of the images of val, float [Q, D].
        targets: classes of these, int64 [Q].
        ks: numbers of neighbours; all N vote where there are fewer.
    """
    import torch

    from slg_wds.teachers.forwards.backends import gpu_settings

    # Whatever the caller has set for its networks: cosines that are rounded to bf16 choose other neighbours.
    device = embeddings.device
    with torch.autocast(device.type, enabled=False), gpu_settings(device, "fp32"):
        return _accuracy(embeddings, classes, queries, targets, ks)


def _accuracy(
    embeddings: torch.Tensor,
    classes: torch.Tensor,
    queries: torch.Tensor,
    targets: torch.Tensor,
    ks: Sequence[int],
) -> dict[int, float]:
    import torch
    from torch.nn import functional as F

    rows = F.normalize(embeddings.float(), dim=1)
    known, classes = torch.unique(classes, return_inverse=True)
    hits = dict.fromkeys(ks, 0)
    parts = (torch.split(one, max(1, MOST // len(rows))) for one in (queries, targets))
    for part, target in zip(*parts, strict=True):
        cosines, nearest = (F.normalize(part.float(), dim=1) @ rows.T).topk(min(max(ks), len(rows)))
        weights = (cosines / TEMPERATURE).exp()
        for k in ks:
            votes = torch.zeros(len(part), len(known), device=rows.device)
            for place in range(min(k, len(rows))):  # one after the other, so that sums have one order
                votes[torch.arange(len(part)), classes[nearest[:, place]]] += weights[:, place]
            hits[k] += int((known[votes.argmax(1)] == target).sum())
    return {k: count / len(targets) for k, count in hits.items()}
