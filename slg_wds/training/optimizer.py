"""The optimizer: its parameter groups, its implementation, and the clipping of gradients."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import model_parameters
from timm.optim import param_groups_weight_decay  # type: ignore[attr-defined]
from timm.utils.clip_grad import dispatch_clip_grad
from torch import nn

from slg_wds.errors import UsageError
from slg_wds.training.distiller import Distiller
from slg_wds.training.flags import Settings


def make_optimizer(args: Settings, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a student's weights.

    Args:
        args: the flags and the device.
        model: the student on its device.

    Raises:
        UsageError: the optimizer does not take --opt-kwargs.
    """
    on_gpu = args.device.type == "cuda"
    options: dict[str, Any] = {
        "lr": args.lr,
        "weight_decay": args.weight_decay,
        # None lets torch choose; False would choose its slowest implementation.
        "fused": True if (on_gpu if args.fused is None else args.fused) else None,
    }
    if args.opt == "sgd":
        options["momentum"] = args.momentum
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[args.opt]
    try:
        optimizer: torch.optim.Optimizer = kind(
            parameter_groups(args, model), **{**options, **args.opt_kwargs}
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"torch's {args.opt} refuses this: {error}") from None
    return optimizer


def parameter_groups(args: Settings, model: nn.Module) -> list[dict[str, Any]]:
    """Return all weights as one group, or with --filter-bias-and-bn in two, one of them without weight decay.

    Without decay are tensors of one dimension (biases, scales and shifts of normalisation) and what the model lists in
    `no_weight_decay()`, such as a vision transformer's position embedding and class token, as timm has it.
    """
    if not args.filter_bias_and_bn:
        return [{"params": list(model.parameters())}]
    named: set[str] = getattr(model, "no_weight_decay", set)()
    groups: list[dict[str, Any]] = param_groups_weight_decay(
        model, args.weight_decay, no_weight_decay_list=named
    )
    return groups


def clip_gradients(model: nn.Module, bound: float, mode: str) -> None:
    """Clip the gradients of a model as timm does.

    Args:
        model: the student, after the backward pass.
        bound: --clip-grad, above 0.
        mode: --clip-mode. `agc` is adaptive gradient clipping (Brock et al. 2021), which leaves the classifier alone,
            or the projectors.
    """
    if mode == "agc" and isinstance(model, Distiller):
        parameters = model.backbone.parameters()
    else:
        parameters = model_parameters(model, exclude_head=mode == "agc")
    dispatch_clip_grad(parameters, bound, mode)


def keep_options(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """Return the saved state of an optimizer with the options of this one: the flags decide, not a checkpoint.

    Args:
        optimizer: of this run.
        saved: the `state_dict` of the optimizer of a checkpoint.
    """
    groups = [
        {**then, **{name: value for name, value in now.items() if name != "params"}}
        for then, now in zip(saved["param_groups"], optimizer.param_groups, strict=False)
    ]
    return {**saved, "param_groups": groups + saved["param_groups"][len(groups) :]}
