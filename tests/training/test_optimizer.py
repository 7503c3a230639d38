"""Which weights decay, which implementation steps, and whose options a resumed run has."""

from __future__ import annotations

import timm
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slg_wds.training.flags import Settings, parse
from slg_wds.training.optimizer import keep_options, make_optimizer
from slg_wds.training.student import make_average
from support.models.tiny_students import plain


def settings(*flags: str) -> Settings:
    args = parse(flags)
    args.device = torch.device("cpu")
    return args


def decayed(arch: str, *flags: str) -> set[str]:
    """The weights that a step with gradients of zero makes smaller."""
    torch.manual_seed(0)
    model = timm.create_model(arch, num_classes=10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
            parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(settings("--opt", "adamw", "--lr", "0.1", "--wd", "0.5", *flags), model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(before)
    optimizer.step()
    changed = set()
    for name, parameter in model.named_parameters():
        if not torch.equal(parameter, before[name]):
            torch.testing.assert_close(parameter.detach(), before[name] * (1 - 0.1 * 0.5))
            changed.add(name)
    return changed


def test_biases_norms_and_what_a_transformer_names_do_not_decay():
    names = {name for name, _ in timm.create_model("test_vit").named_parameters()}
    assert {"cls_token", "pos_embed", "norm.weight", "blocks.0.attn.qkv.bias"} < names
    weights = {name for name in names if name.endswith(".weight") and "norm" not in name}
    assert decayed("test_vit", "--filter-bias-and-bn") == weights
    assert decayed("test_vit") == names


def test_batch_norms_do_not_decay():
    kept = decayed("test_resnet", "--filter-bias-and-bn")
    assert "conv1.weight" in kept or "conv1.0.weight" in kept
    assert not {name for name in kept if "bn" in name or name.endswith(".bias")}


def after_steps(*flags: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = plain()
    optimizer = make_optimizer(settings("--lr", "0.1", *flags), model)
    for seed in range(3):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_fused_optimizer_steps_as_the_other_one():
    for name in ("sgd", "adamw"):
        usual, fused = after_steps("--opt", name), after_steps("--opt", name, "--fused")
        for key, value in usual.items():
            torch.testing.assert_close(fused[key], value, rtol=1e-5, atol=1e-7)


def test_gpus_take_the_fused_optimizer():
    def fused(device: str, *flags: str) -> bool | None:
        args = settings(*flags)
        args.device = torch.device(device)
        return make_optimizer(args, plain()).param_groups[0]["fused"]

    assert fused("cuda") is True and fused("cpu", "--fused") is True
    # None and not False, with which torch would step tensor by tensor.
    assert fused("cpu") is None and fused("cuda", "--no-fused") is None


def test_other_arguments_reach_the_optimizer():
    args = settings("--opt", "adamw", "--opt-kwargs", "betas=(0.8,0.95)", "amsgrad=True")
    (group,) = make_optimizer(args, plain()).param_groups
    assert group["betas"] == (0.8, 0.95) and group["amsgrad"] is True
    assert after_steps("--opt-kwargs", "nesterov=True")["4.bias"].ne(after_steps()["4.bias"]).any()


def test_a_resumed_run_keeps_its_own_options_and_the_moments():
    first, second = plain(), plain()
    old = make_optimizer(settings("--opt", "adamw", "--wd", "0.1", "--fused"), first)
    for parameter in first.parameters():
        parameter.grad = torch.ones_like(parameter)
    old.step()
    new = make_optimizer(settings("--opt", "adamw", "--wd", "0.3", "--lr", "0.02"), second)
    new.load_state_dict(keep_options(new, old.state_dict()))
    (group,) = new.param_groups
    assert (group["weight_decay"], group["lr"], group["fused"]) == (0.3, 0.02, None)
    moments = [new.state[parameter]["exp_avg"] for parameter in second.parameters()]
    assert all(torch.equal(one, torch.full_like(one, 0.1)) for one in moments)


def test_the_average_is_updated_in_few_calls():
    """`foreach`: one call for all weights of a kind, where one for each would cost a GPU's host dearly."""

    class Calls(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            self.names.append(function.overloadpacket.__name__)
            return function(*arguments, **(options or {}))

    model = timm.create_model("test_resnet", num_classes=10)
    average = make_average(model, 0.9)
    with Calls() as calls:
        average.update(model)
    assert calls.names.count("_foreach_lerp_") == 1 and "lerp_" not in calls.names
