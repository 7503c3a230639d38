"""A second small teacher, of the same input and classes as tiny_teacher.tiny, with other weights."""

import torch
from tiny_teacher import tiny
from torch import nn


def tiny_other() -> nn.Module:
    model = tiny()
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return model
