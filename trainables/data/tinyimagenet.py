"""Tiny-ImageNet: photographs of 64x64 pixels in 200 classes of ImageNet; 100,000 to train on, 10,000 to validate, 10,000 without labels.

Le, Yang, "Tiny ImageNet Visual Recognition Challenge", CS 231N, Stanford, 2015, http://cs231n.stanford.edu/tiny-imagenet-200.zip.
ImageNet's terms hold: non-commercial research. On the hub: zh-plus/tiny-imagenet, columns image and label, splits train and valid.
Test is the official validation split: the labels of the test split are not published. Rows on the hub are sorted by class, so A is
drawn. Channel means and deviations: of the training pixels, as commonly given; not from a paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import Choice, Text, tunable
from trainables.partition import FIRST, STRATIFIED
from trainables.pictures import Shape
from trainables.pictureset import Facts, PictureSet
from trainables.source import Scaling


@dataclass(frozen=True)
class TinyImageNet(PictureSet):
    """Test is the official validation split."""

    facts: ClassVar[Facts] = Facts(
        picture="image",
        splits={"train": ("train",), "test": ("valid", "val", "validation")},
        rows={"train": 100_000, "test": 10_000},
        scaling=Scaling((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
    )

    draw: str = tunable(STRATIFIED, Choice((FIRST, STRATIFIED)), "which rows are A: the first on disk, or each class by its share")
    hub: str = tunable("zh-plus/tiny-imagenet", Text(), "name on the hub", only_if={"path": ("",)})
    revision: str = tunable("5a77092c28e51558c5586e9c5eb71a7e17a5e43f", Text(), "commit, tag or branch of it", only_if={"path": ("",)})

    @property
    def classes(self) -> int:
        return 200

    @property
    def shape(self) -> Shape:
        return Shape(64, fixed=True)
