"""CIFAR-100: 60,000 photographs of 32x32 pixels in a hundred classes, which make twenty coarse ones; 50,000 to train on, 10,000 to test.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of Toronto, 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. It states no licence; it was made from the withdrawn 80 Million Tiny Images. On the hub:
uoft-cs/cifar100, columns img, fine_label and coarse_label. Channel means and deviations as in RepDistiller, from which the
published tables come. Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, https://arxiv.org/abs/1910.10699.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import Choice, Text, tunable
from trainables.pictures import Shape
from trainables.pictureset import Facts, PictureSet
from trainables.source import Scaling

FINE, COARSE = "fine", "coarse"
COARSE_LABELS = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices", "household_furniture",
    "insects", "large_carnivores", "large_man-made_outdoor_things", "large_natural_outdoor_scenes", "large_omnivores_and_herbivores",
    "medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip


@dataclass(frozen=True)
class Cifar100(PictureSet):
    """Test is the official test split."""

    facts: ClassVar[Facts] = Facts(
        picture="img",
        splits={"train": ("train",), "test": ("test",)},
        rows={"train": 50_000, "test": 10_000},
        scaling=Scaling((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    )

    hub: str = tunable("uoft-cs/cifar100", Text(), "name on the hub", only_if={"path": ("",)})
    revision: str = tunable("aadb3af77e9048adbea6b47c21a81e47dd092ae5", Text(), "commit, tag or branch of it", only_if={"path": ("",)})
    labels: str = tunable(FINE, Choice((FINE, COARSE)), "the hundred classes or the twenty that they make")

    @property
    def classes(self) -> int:
        return 100 if self.labels == FINE else len(COARSE_LABELS)

    @property
    def shape(self) -> Shape:
        return Shape(32, fixed=True)

    @property
    def label(self) -> str:
        return f"{self.labels}_label"
