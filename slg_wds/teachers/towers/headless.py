"""Take the head off a model, so that it returns the features that its last layer would have read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slg_wds.errors import TeacherError, UsageError
from slg_wds.teachers.weights import one_line

if TYPE_CHECKING:
    import torch


def without_timm_head(module: torch.nn.Module, name: str, input_size: int | None) -> torch.nn.Module:
    """Remove the classifier of a model of timm, which keeps the model's own pooling.

    Args:
        module: the model; it is changed.
        name: of the model, for messages.
        input_size: side of the input in pixels that the user asked for; None for the model's own.

    Raises:
        TeacherError: the model has no classifier that can be removed.
        UsageError: the input is not a whole number of patches.
    """
    model: Any = module
    _check_patches(model, name, input_size)
    try:
        model.reset_classifier(0)
        sizes = getattr(getattr(model, "patch_embed", None), "img_size", None)
        # Models without it take any size, or the first forward tells.
        resize = getattr(model, "set_input_size", None)
        if input_size and sizes and resize and tuple(sizes) != (input_size, input_size):
            resize(img_size=(input_size, input_size))  # positions are interpolated
    except Exception as error:
        raise TeacherError(f"{name}: its head cannot be removed: {one_line(error)}") from None
    return module


def _check_patches(model: Any, name: str, input_size: int | None) -> None:
    """Raise UsageError for an input of broken patches, of which the rest would not be looked at.

    Patches that overlap, or that several convolutions make, are padded.
    """
    cut = getattr(getattr(model, "patch_embed", None), "proj", None)
    sides = getattr(cut, "kernel_size", None), getattr(cut, "stride", None)
    if not input_size or not sides[0] or sides[0] != sides[1] or input_size % (side := sides[0][0]) == 0:
        return
    below = input_size // side * side
    sizes = " or ".join(str(size) for size in (below, below + side) if size)
    raise UsageError(
        f"--input-size {input_size} is not a multiple of {side}, the side of a patch of {name}",
        hint=f"give {sizes}",
    )


def without_torchvision_head(module: torch.nn.Module, name: str) -> torch.nn.Module:
    """Replace the last linear layer of a model of torchvision, or its last convolution, by the identity.

    Args:
        module: the model; it is changed.
        name: of the model, for messages.

    Raises:
        TeacherError: the model has no such layer.
    """
    from torch import nn

    layers = [
        path for path, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d)) and path
    ]
    if not layers:
        raise TeacherError(f"{name}: it has no layer that could be its head")
    parent, _, last = layers[-1].rpartition(".")
    setattr(module.get_submodule(parent), last, nn.Identity())
    return module
