"""What has to be reached on one H100 with 16 cores, and what was predicted for it."""

from __future__ import annotations

# The least that a figure may be.
BARS = {
    "generation / bare forward, resnet50": 0.97,
    "generation / bare forward, vit_b": 0.97,
    "loader, crops/s at 1 crop an image": 5_000.0,
    "loader, crops/s at 4 crops an image": 15_000.0,
    "loader, crops/s at 8 crops an image": 23_000.0,
    "training step, constant batch / loader": 0.98,
}

# tools/EXPERIMENTS.md, "predictions for GPUs, renewed" (2026-11-26).
PREDICTED = {
    "generation / bare forward, resnet50": 0.99,
    "generation / bare forward, vit_b": 0.99,
    "loader, crops/s at 1 crop an image": 9_600.0,
    "loader, crops/s at 4 crops an image": 27_700.0,
    "loader, crops/s at 8 crops an image": 46_700.0,
    "training step, constant batch / loader": 0.99,
}
