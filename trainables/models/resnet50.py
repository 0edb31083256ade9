"""ResNet-50 for 32x32 pictures: bottleneck blocks behind a 3x3 stem that keeps the resolution, without max pooling.

He et al. 2016 (arXiv:1512.03385), table 1, in the form of the distillation literature (Tian et al. 2020, arXiv:1910.10699); the stride
lies in the 3x3 convolution. The one for 224x224 pictures, with a 7x7 stem and max pooling, is family ``imagenet``.
Initialisation as there: He's normal by fan-out for convolutions; the classifier as torch has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from trainables.convolutions import Convolutional, Residual, check_pictures, initialise, normalised, shortcut
from trainables.form import Form
from trainables.network import Family, Network

_BLOCKS = (3, 4, 6, 3)
_EXPANSION = 4


@dataclass(frozen=True)
class ResNet50(Family):
    """Stages stem, stage1, ..., stage4: the rectified outputs of the groups, from the whole resolution down to an eighth."""

    def fits(self, form: Form) -> None:
        check_pictures("ResNet50", form.shape, stride=8, least=16)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        groups, before = [], 64
        for number, blocks in enumerate(_BLOCKS):
            narrow = 64 * 2**number
            groups.append(_group(before, narrow, blocks, stride=1 if number == 0 else 2))
            before = narrow * _EXPANSION
        network = Convolutional(normalised(shape[0], 64, 3), groups, nn.Identity(), nn.Linear(before, classes))
        initialise(network)
        return network


def _group(inputs: int, narrow: int, blocks: int, stride: int) -> nn.Sequential:
    found, wide = [], narrow * _EXPANSION
    for number in range(blocks):
        before, step = (inputs, stride) if number == 0 else (wide, 1)
        branch = nn.Sequential(normalised(before, narrow), normalised(narrow, narrow, 3, step), normalised(narrow, wide, rectified=False))
        found.append(Residual(branch, shortcut(before, wide, step)))
    return nn.Sequential(*found)
