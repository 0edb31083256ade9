"""MobileNetV2 for 32x32 pictures: inverted residual blocks, which are wide inside and narrow, without a rectifier, where they meet.

Sandler et al. 2018 (arXiv:1801.04381), table 2, in the form of the distillation literature (Tian et al. 2020, arXiv:1910.10699, which has
it from Jin et al. 2019): the second group keeps the resolution, so that 32x32 pictures end as 2x2 maps. The one for 224x224 pictures
is family ``imagenet``.

Departure, as in that literature: rectifiers without an upper bound; the first block, of expansion 1, has its 1x1 convolution, too; channels
are the paper's times ``width``, cut off, not rounded to multiples of eight; there is no dropout.
Initialisation as there: He's normal by fan-out for convolutions; the classifier's weights normal with standard deviation 0.01, its biases 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from search_spaces import Choice, tunable
from trainables.convolutions import Convolutional, check_pictures, initialise, normalised, small_head
from trainables.form import Form
from trainables.network import Family, Network

_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each group."""
_STAGES = ((0, 1), (2,), (3, 4), (5, 6))
"""Which groups lie in a stage."""
_LAST = 1280


@dataclass(frozen=True)
class MobileNetV2(Family):
    """Stages stem, stage1, ..., stage4: what the groups return, not rectified, from half of the resolution down to a sixteenth."""

    width: float = tunable(0.5, Choice((0.25, 0.5, 0.75, 1.0)), "factor on the channels of the groups; the last 1280 stay")

    def fits(self, form: Form) -> None:
        check_pictures("MobileNetV2", form.shape, stride=16, least=32)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        stem = before = int(32 * self.width)
        groups = []
        for expansion, channels, blocks, stride in _GROUPS:
            after = int(channels * self.width)
            inner = [(before, stride), *[(after, 1)] * (blocks - 1)]
            groups.append(nn.Sequential(*(_Block(inputs, after, step, expansion) for inputs, step in inner)))
            before = after
        stages = [nn.Sequential(*(groups[number] for number in numbers)) for numbers in _STAGES]
        network = Convolutional(normalised(shape[0], stem, 3, 2), stages, normalised(before, _LAST), nn.Linear(_LAST, classes))
        initialise(network)
        small_head(network.head)
        return network


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.branch = nn.Sequential(
            normalised(inputs, inner), normalised(inner, inner, 3, stride, groups=inner), normalised(inner, outputs, rectified=False)
        )
        self.adds = (inputs, stride) == (outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        found: Tensor = self.branch(x)
        return x + found if self.adds else found
