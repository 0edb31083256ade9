"""ShuffleNet V1 for 32x32 pictures: grouped 1x1 convolutions, between which the channels of the groups are shuffled.

Zhang et al. 2018 (arXiv:1707.01083), table 1 and figure 2, in the form of the distillation literature (Tian et al. 2020,
arXiv:1910.10699): a 1x1 stem that keeps the resolution, without max pooling, so that 32x32 pictures end as 4x4 maps.

Departure, as in that literature: the depthwise convolution is rectified, and in a block that halves, what is inside is a quarter of what
its branch returns, not of what the block does. Initialisation as there: as torch has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces import Choice, tunable
from trainables.convolutions import ChannelShuffle, Convolutional, check_pictures, normalised
from trainables.form import Form
from trainables.network import Family, Network

_WIDTHS = {1: 144, 2: 200, 3: 240}
"""Channels of the first stage by groups; the second has twice, the third four times as many."""
_BLOCKS = (4, 8, 4)
_STEM = 24


@dataclass(frozen=True)
class ShuffleNetV1(Family):
    """Stages stem, stage1, stage2, stage3: the rectified outputs of the stages, from half of the resolution down to an eighth."""

    groups: int = tunable(3, Choice(tuple(_WIDTHS)), "groups of the 1x1 convolutions")

    def fits(self, form: Form) -> None:
        check_pictures("ShuffleNetV1", form.shape, stride=8, least=16)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        stages, before = [], _STEM
        for number, blocks in enumerate(_BLOCKS):
            after = _WIDTHS[self.groups] * 2**number
            first = _Block(before, after, 1 if before == _STEM else self.groups, self.groups, halves=True)
            others = (_Block(after, after, self.groups, self.groups, halves=False) for _ in range(blocks - 1))
            stages.append(nn.Sequential(first, *others))
            before = after
        return Convolutional(normalised(shape[0], _STEM), stages, nn.Identity(), nn.Linear(before, classes))


class _Block(nn.Module):
    """Adds its inputs to what its branch returns, or, where it halves, puts their means behind it."""

    def __init__(self, inputs: int, outputs: int, groups_of_first: int, groups: int, halves: bool) -> None:
        super().__init__()
        returned = outputs - inputs if halves else outputs
        inner = returned // 4
        self.branch = nn.Sequential(
            normalised(inputs, inner, groups=groups_of_first),
            ChannelShuffle(groups_of_first),
            normalised(inner, inner, 3, 2 if halves else 1, groups=inner),
            normalised(inner, returned, groups=groups, rectified=False),
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if halves else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        found: Tensor = self.branch(x)
        return (found + x if self.pool is None else torch.cat([found, self.pool(x)], dim=1)).relu()
