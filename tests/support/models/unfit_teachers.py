"""Teachers whose outputs depend on more than the crop or are no logits, and some that only look like it."""

import torch
from tiny_teacher import tiny
from torch import nn
from torch.nn import functional as F

RATE = 0.5  # of dropout. At 0.1, two forwards dropped none of the likely classes now and then, and looked the same.


class Around(nn.Module):
    """`tiny` with a module before it, for its pixels, and one after it, for its logits."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.inner = tiny()
        self.before, self.after = before or nn.Identity(), after or nn.Identity()
        self.pretrained_cfg = self.inner.pretrained_cfg

    def forward(self, x):
        return self.after(self.inner(self.before(x)))


class Deaf(Around):
    """Ignores `eval()`, like a module that handles the mode of its layers itself."""

    def eval(self):
        return self


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Hidden(nn.Module):
    """Keeps its layers in a list, where `eval()` does not find them."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = [*layers]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Counting(nn.Module):
    """Keeps a running mean of its inputs."""

    def __init__(self):
        super().__init__()
        self.mean = 0.0

    def forward(self, x):
        self.mean = 0.5 * self.mean + 0.5 * float(x.mean())
        return x + 3 * self.mean


def batch_statistics():
    return Deaf(nn.BatchNorm2d(3))


def dropout_by_function():
    return Around(after=Function(lambda x: F.dropout(x, RATE)))


def dropout_without_eval():
    return Deaf(after=nn.Sequential(nn.Dropout(RATE)))


def hidden_dropout():
    return Around(after=Hidden(nn.Dropout(RATE)))


def hidden_batch_statistics():
    return Around(Hidden(nn.BatchNorm2d(3)))


def normalised_by_its_batch():
    return Around(Function(lambda x: F.batch_norm(x, None, None, training=True)))


def attention_over_the_batch():
    return Around(after=Function(lambda x: torch.softmax(x @ x.T / 30, 1) @ x))


def by_place():
    return Around(
        after=Function(lambda x: x + torch.arange(len(x))[:, None] * torch.linspace(0, 1, x.shape[1]))
    )


def counting():
    return Around(Counting())


def softmaxed():
    return Around(after=nn.Softmax(1))


def softmaxed_and_rounded():
    return Around(after=Function(lambda x: x.softmax(1).bfloat16()))


def eval_without_answer():
    """A fit teacher whose `eval` returns None, which is allowed."""

    class Silent(Around):
        def eval(self):
            super().eval()

    return Silent(nn.BatchNorm2d(3))


def log_probabilities():
    """A fit teacher: the softmax of log-probabilities is the probabilities."""
    return Around(after=nn.LogSoftmax(1))


def positive():
    """A fit teacher whose logits are never negative, as those of torchvision's SqueezeNet."""
    return Around(after=nn.ReLU())
