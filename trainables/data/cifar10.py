"""CIFAR-10: 60,000 photographs of 32x32 pixels in ten classes; 50,000 to train on, 10,000 to test.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of Toronto, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. It states no licence; it was made from the withdrawn 80 Million Tiny Images. On the hub:
uoft-cs/cifar10, columns img and label. Channel means and deviations are those of the training pixels; Borup and Andersen's
code divides by (.2023, .1994, .2010), which are means over pictures of each picture's deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import Text, tunable
from trainables.pictures import Shape
from trainables.pictureset import Facts, PictureSet
from trainables.source import Scaling

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Cifar10(PictureSet):
    """Test is the official test split."""

    facts: ClassVar[Facts] = Facts(
        picture="img",
        splits={"train": ("train",), "test": ("test",)},
        rows={"train": 50_000, "test": 10_000},
        scaling=Scaling((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        config="plain_text",
    )

    hub: str = tunable("uoft-cs/cifar10", Text(), "name on the hub", only_if={"path": ("",)})
    revision: str = tunable("0b2714987fa478483af9968de7c934580d0bb9a2", Text(), "commit, tag or branch of it", only_if={"path": ("",)})

    @property
    def classes(self) -> int:
        return len(LABELS)

    @property
    def shape(self) -> Shape:
        return Shape(32, fixed=True)
