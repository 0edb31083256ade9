"""Convolutional networks in the one form they all have: a stem, stages, what follows them, the mean over positions, a classifier.

The stages are those that the code of CRD (Tian et al. 2020, arXiv:1910.10699) hands to feature methods, in its order: "stem" is its
f0, "stage1" to "stage4" its f1 to f4, which end where the resolution halves; "penultimate" is its last, the mean over positions.
First, middle and last leave the stem out; middle is what that code calls the hint layer, its f2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from trainables.distiller import Outputs
from trainables.network import FIRST, LAST, MIDDLE, PENULTIMATE, Network

STEM = "stem"


@final
class Convolutional(Network):
    """The mean over positions makes one classifier fit every size of picture; shapes are static for any."""

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], tail: nn.Module, head: nn.Linear, dropout: float = 0.0) -> None:
        """``stages`` are named stage1, stage2, ...; ``tail`` is what lies between the last of them and the mean, dropout what comes behind."""
        super().__init__()
        self.stages = (STEM, *(f"stage{number + 1}" for number in range(len(stages))))
        self.stem = stem
        self.body = nn.ModuleList(stages)
        self.tail = tail
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.head = head

    def stage(self, name: str) -> str:
        behind = self.stages[1:]
        return {FIRST: behind[0], MIDDLE: behind[(len(behind) - 1) // 2], LAST: behind[-1]}.get(name, name)

    def forward(self, inputs: Tensor, features: Sequence[str] = ()) -> Outputs:
        maps: dict[str, Tensor] = {}
        x = inputs
        for name, part in zip(self.stages, (self.stem, *self.body), strict=True):
            x = part(x)  # (B, C, H, W)
            if name in features:
                maps[name] = x
        x = self.dropout(self.tail(x).mean(dim=(2, 3)))  # (B, D)
        if PENULTIMATE in features:
            maps[PENULTIMATE] = x
        return Outputs(self.head(x), maps)


@final
class Residual(nn.Module):
    """The rectified sum of a branch and a shortcut: He et al. 2016 (arXiv:1512.03385), equations 1 and 2."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        rectified: Tensor = (self.branch(x) + self.shortcut(x)).relu()
        return rectified


@final
class ChannelShuffle(nn.Module):
    """Channels dealt out in turns: of g groups of n, the first of each, then the second of each: Zhang et al. 2018 (arXiv:1707.01083)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        rows, channels, height, width = x.shape
        return x.reshape(rows, self.groups, channels // self.groups, height, width).transpose(1, 2).reshape(x.shape)


def normalised(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, rectified: bool = True) -> nn.Sequential:
    """A convolution without bias that keeps the size (before its stride), batch norm, and, if asked, a rectifier."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    last = [nn.ReLU(inplace=True)] if rectified else []
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *last)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Nothing where the shape stays, otherwise a 1x1 convolution with batch norm: option B of He et al. 2016."""
    return nn.Identity() if (inputs, stride) == (outputs, 1) else normalised(inputs, outputs, stride=stride, rectified=False)


def initialise(network: nn.Module) -> None:
    """Convolutions from a normal of variance 2 / (k^2 outputs), their biases 0, batch norms the identity: He et al. 2015 (arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def small_head(head: nn.Linear) -> nn.Linear:
    """The classifier, its weights drawn anew with standard deviation 0.01 and its biases 0."""
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head


def check_pictures(title: str, shape: tuple[int, ...], stride: int, least: int) -> None:
    """Raise ValueError if inputs are not (C, H, W) with H and W multiples of what the network divides them by, ``least`` or more."""
    if len(shape) != 3 or any(side < least or side % stride for side in shape[1:]):
        raise ValueError(
            f"{title} needs inputs (C, H, W) with H and W of at least {least} and multiples of {stride}, but got shape={tuple(shape)}. "
            "Pad or resize the pictures, or take a family for smaller ones, such as cnn."
        )
