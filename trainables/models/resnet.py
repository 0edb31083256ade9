"""ResNet for 32x32 pictures: three groups of residual blocks with 16, 32 and 64 channels, or four times as many.

He et al. 2016 (arXiv:1512.03385), section 4.2, in the form of the distillation literature (Tian et al. 2020, arXiv:1910.10699):
depth=20 is resnet20, and depth=8 or 32 with width=4 are resnet8x4 and resnet32x4, whose stem has twice the channels, not four times.

Departure, as in that literature: where the shape changes, the shortcut is a 1x1 convolution with batch norm (option B), not padding.
Initialisation as there: He's normal by fan-out for convolutions; the classifier as torch has it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import nn

from search_spaces import Choice, tunable
from trainables.convolutions import Convolutional, Residual, check_pictures, initialise, normalised, shortcut
from trainables.form import Form
from trainables.network import Family, Network


@dataclass(frozen=True)
class ResNet(Family):
    """Stages stem, stage1, stage2, stage3: the rectified outputs of the groups, on the whole, half and a quarter of the resolution."""

    depth: int = tunable(20, Choice((8, 14, 20, 32, 44, 56, 110)), "layers with weights: six for every block of a group, and two")
    width: int = tunable(1, Choice((1, 4)), "factor on the channels of the groups")

    def fits(self, form: Form) -> None:
        check_pictures("ResNet", form.shape, stride=4, least=8)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        stem = 16 if self.width == 1 else 8 * self.width
        widths = [stem, *(16 * self.width * factor for factor in (1, 2, 4))]
        groups = [
            _group(before, after, blocks=(self.depth - 2) // 6, stride=1 if number == 0 else 2)
            for number, (before, after) in enumerate(itertools.pairwise(widths))
        ]
        network = Convolutional(normalised(shape[0], stem, 3), groups, nn.Identity(), nn.Linear(widths[-1], classes))
        initialise(network)
        return network


def _group(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    found = []
    for number in range(blocks):
        before, step = (inputs, stride) if number == 0 else (outputs, 1)
        branch = nn.Sequential(normalised(before, outputs, 3, step), normalised(outputs, outputs, 3, rectified=False))
        found.append(Residual(branch, shortcut(before, outputs, step)))
    return nn.Sequential(*found)
