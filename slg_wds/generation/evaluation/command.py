"""`slg-wds evaluate`: the command."""

from __future__ import annotations

import dataclasses

from slg_wds.config import EvaluateConfig
from slg_wds.console import tell, tell_json
from slg_wds.generation.evaluation.accuracy import evaluate, figures
from slg_wds.generation.evaluation.embeddings import evaluate_embeddings


def main(config: EvaluateConfig) -> int:
    """Run the command, and print figures to stdout."""
    if config.output == "embedding":
        scores = evaluate_embeddings(config)
        if config.json:
            tell_json([dataclasses.asdict(score) for score in scores], indent=None)
        else:
            tell(*(line for score in scores for line in score.lines(config.data)))
        return 0
    accuracy = evaluate(config)
    if config.json:
        found = {"top1": accuracy.top1, "top5": accuracy.top5, "loss": accuracy.loss}
        tell_json({**found, "images": accuracy.count}, indent=None)
    else:
        tell(figures(config, accuracy))
    return 0
