"""VGG with batch norm for small pictures: five blocks of 3x3 convolutions and one fully connected layer.

Simonyan and Zisserman 2015 (arXiv:1409.1556), table 1, columns A (depth=11), B (13), D (16) and E (19), and one of one convolution a block
(8), in the form of the distillation literature (Tian et al. 2020, arXiv:1910.10699): the mean over positions and one linear layer
stand in for the three fully connected ones. Max pooling halves behind the first three blocks, and, from 64x64 pictures on, behind the
fourth. Convolutions keep their bias, though batch norm takes its effect away: the published counts have it.

Initialisation as there: He's normal by fan-out for convolutions; the classifier's weights normal with standard deviation 0.01, its biases 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from search_spaces import Choice, tunable
from trainables.convolutions import Convolutional, check_pictures, initialise, small_head
from trainables.form import Form
from trainables.network import Family, Network

_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_LARGE = 64
"""Height and width from which on the fourth block is followed by max pooling, too."""


@dataclass(frozen=True)
class VGG(Family):
    """Stages stem (the first block), stage1, ..., stage4: the rectified outputs of the blocks, before they are halved by max pooling."""

    depth: int = tunable(8, Choice(tuple(_CONVOLUTIONS)), "layers with weights in the paper, where three are fully connected")

    def fits(self, form: Form) -> None:
        check_pictures("VGG", form.shape, stride=16 if _is_large(form.shape) else 8, least=16)

    def build(self, shape: tuple[int, ...], classes: int) -> Network:
        self.fits(Form(shape, classes))
        is_large = _is_large(shape)
        blocks, before = [], shape[0]
        for number, (width, count) in enumerate(zip(_WIDTHS, _CONVOLUTIONS[self.depth], strict=True)):
            halves = 0 < number < 4 or (number == 4 and is_large)
            blocks.append(_block(before, width, count, halves))
            before = width
        network = Convolutional(blocks[0], blocks[1:], nn.Identity(), nn.Linear(before, classes))
        initialise(network)
        small_head(network.head)
        return network


def _is_large(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and min(shape[1:]) >= _LARGE


def _block(inputs: int, width: int, count: int, halves: bool) -> nn.Sequential:
    found: list[nn.Module] = [nn.MaxPool2d(2)] if halves else []
    for number in range(count):
        convolution = nn.Conv2d(inputs if number == 0 else width, width, 3, padding=1)
        found += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*found)
