"""ShuffleNet V2 for 32x32 pictures: half of the channels pass a block untouched, then both halves are shuffled.

Ma et al. 2018 (arXiv:1807.11164), table 5 and figure 3, in the form of the distillation literature (Tian et al. 2020, arXiv:1910.10699):
a 1x1 stem that keeps the resolution, without max pooling, so that 32x32 pictures end as 4x4 maps.

Departure from that literature's code: width=2 has the paper's 244 channels in its first stage, where the code has 224.
Initialisation as there: as torch has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces import Choice, tunable
from trainables.convolutions import ChannelShuffle, Convolutional, check_pictures, normalised
from trainables.form import Form
from trainables.network import Family, Network

_WIDTHS = {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024), 1.5: (176, 352, 704, 1024), 2.0: (244, 488, 976, 2048)}
"""Channels of the three stages and of the last convolution."""
_BLOCKS = (4, 8, 4)
_STEM = 24


@dataclass(frozen=True)
class ShuffleNetV2(Family):
    """Stages stem, stage1, stage2, stage3: what the stages return, shuffled, from half of the resolution down to an eighth."""

    width: float = tunable(1.0, Choice(tuple(_WIDTHS)), "factor on the channels, by the paper's table")

    def fits(self, form: Form) -> None:
        check_pictures("ShuffleNetV2", form.shape, stride=8, least=16)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        *widths, last = _WIDTHS[self.width]
        stages, before = [], _STEM
        for width, blocks in zip(widths, _BLOCKS, strict=True):
            stages.append(nn.Sequential(_Halving(before, width), *(_Block(width) for _ in range(blocks - 1))))
            before = width
        return Convolutional(normalised(shape[0], _STEM), stages, normalised(before, last), nn.Linear(last, classes))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(normalised(half, half), normalised(half, half, 3, groups=half, rectified=False), normalised(half, half))
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        kept, changed = x.chunk(2, dim=1)
        shuffled: Tensor = self.shuffle(torch.cat([kept, self.branch(changed)], dim=1))
        return shuffled


class _Halving(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(normalised(inputs, inputs, 3, 2, groups=inputs, rectified=False), normalised(inputs, half))
        self.right = nn.Sequential(
            normalised(inputs, half), normalised(half, half, 3, 2, groups=half, rectified=False), normalised(half, half)
        )
        self.shuffle = ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / 2, W / 2)"""
        shuffled: Tensor = self.shuffle(torch.cat([self.left(x), self.right(x)], dim=1))
        return shuffled
