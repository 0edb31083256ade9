"""Wide ResNet, WRN-depth-width: three groups of residual blocks that normalise and rectify before they convolve.

Zagoruyko and Komodakis 2016 (arXiv:1605.07146), table 1; where the shape changes, the 1x1 shortcut reads what is rectified, as in its code.
What a group returns is therefore a sum that was not rectified yet, and so are the stages, as in the distillation literature
(Tian et al. 2020, arXiv:1910.10699); "penultimate" comes behind the last batch norm and rectifier.
Initialisation as there: He's normal by fan-out for convolutions; the classifier's weights as torch has them, its biases 0.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import Tensor, nn

from search_spaces import Choice, IntUniform, Uniform, tunable
from trainables.convolutions import Convolutional, check_pictures, initialise
from trainables.form import Form
from trainables.network import Family, Network


@dataclass(frozen=True)
class WRN(Family):
    """Stages stem, stage1, stage2, stage3: what the groups return, not rectified, on the whole, half and a quarter of the resolution."""

    depth: int = tunable(16, Choice((10, 16, 22, 28, 34, 40)), "layers with weights: six for every block of a group, and four")
    width: int = tunable(2, IntUniform(1, 10), "factor on the channels 16, 32, 64 of the groups", low=1)
    dropout: float = tunable(
        0.0, Uniform(0.0, 0.5), "share that a training step leaves out between the convolutions of a block", off=0.0, low=0.0, high=1.0
    )

    def fits(self, form: Form) -> None:
        check_pictures("WRN", form.shape, stride=4, least=8)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        widths = [16, *(16 * self.width * factor for factor in (1, 2, 4))]
        groups = []
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            first = _Block(before, after, 1 if number == 0 else 2, self.dropout)
            others = (_Block(after, after, 1, self.dropout) for _ in range((self.depth - 4) // 6 - 1))
            groups.append(nn.Sequential(first, *others))
        stem = nn.Conv2d(shape[0], 16, 3, padding=1, bias=False)
        tail = nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True))
        network = Convolutional(stem, groups, tail, nn.Linear(widths[-1], classes))
        initialise(network)
        nn.init.zeros_(network.head.bias)
        return network


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.opening = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout) if dropout > 0 else nn.Identity(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        opened = self.opening(x)
        summed: Tensor = self.branch(opened) + (x if self.shortcut is None else self.shortcut(opened))
        return summed
