"""The parsed flags of `slg-wds train`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Settings(argparse.Namespace):
    """The parsed flags. The last five are not flags: parse, take_place and run set them."""

    data: str | None
    config: str | None
    arch: str
    drop_path: float | None
    model_kwargs: dict[str, Any]
    workers: int | None
    loader_processes: int
    epochs: int
    start_epoch: int
    batch_size: int
    lr: float
    schedule: list[int]
    momentum: float
    weight_decay: float
    print_freq: int
    resume: str
    evaluate: bool
    pretrained: bool
    seed: int
    num_crops: int
    softlabel_path: list[str]
    distill: str
    embedding_loss: str
    embedding_norm: str
    knn_images: int
    temp: float
    label_temp: float | None
    label_temp_end: float | None
    cos: bool
    save_checkpoint_path: str
    soft_label_type: str | None
    num_classes: int | None
    mixup_cutmix: bool
    mixup: float
    cutmix: float
    mixup_cutmix_prob: float
    mixup_switch_prob: float
    multiprocessing_distributed: bool
    world_size: int
    rank: int
    dist_url: str
    dist_backend: str | None
    gpu: int | None
    label_weights: list[float] | None
    crop_filter: Any
    size: int | None
    interpolation: str | None
    opt: str
    opt_kwargs: dict[str, Any]
    filter_bias_and_bn: bool
    fused: bool | None
    clip_grad: float | None
    clip_mode: str
    grad_accum_steps: int
    warmup: int
    sched: str | None
    sched_kwargs: dict[str, Any]
    warmup_epochs: float
    warmup_lr: float
    min_lr: float
    amp: str
    channels_last: bool
    compile: bool
    sync_bn: bool
    ema: float
    checkpoint_every: int
    log: list[str]
    val_softlabels: str | None
    val_images: str | None
    class_map: str | None
    target_accuracy: float
    cache_dir: str | None
    store_option: list[str]
    deterministic: bool
    device: torch.device
    ranks: int
    flags: dict[str, Any]
    logit_scale: float | None

    @property
    def distills(self) -> bool:
        """Whether the student learns embeddings in place of labels."""
        return self.distill == "embedding"
