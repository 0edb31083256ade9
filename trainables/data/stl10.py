"""STL-10: photographs of 96x96 pixels in ten classes; 5,000 to train on, 8,000 to test, and 100,000 without a label.

Coates, Lee, Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011,
https://cs.stanford.edu/~acoates/stl10/. Its pictures come from ImageNet, whose terms hold. On the hub: tanganke/stl10, columns
image and label, splits train and test; whether the copy there has the split of pictures without labels was not seen, so that
joins U only if asked for. Some of these are test pictures too (https://arxiv.org/abs/2506.03582): they are left out, being known
by their content. Channel means and deviations: of the training pixels, as commonly given; not from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import Choice, Text, Uniform, tunable
from trainables.partition import FIRST, STRATIFIED
from trainables.pictures import Shape
from trainables.pictureset import Facts, PictureSet
from trainables.source import Scaling

LABELS = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")


@dataclass(frozen=True)
class Stl10(PictureSet):
    """Test is the official test split."""

    facts: ClassVar[Facts] = Facts(
        picture="image",
        splits={"train": ("train",), "test": ("test",), "more": ("unlabeled", "unlabelled")},
        rows={"train": 5_000, "test": 8_000, "more": 100_000},
        scaling=Scaling((0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    )

    labelled: float = tunable(
        1.0, Uniform(0.01, 1.0), "rows of A, which train the teacher: below 1 a share of the training split, 1 all that V leaves, from 2 a count",
        low=1e-6,
    )  # fmt: skip
    validation: float = tunable(0.1, Uniform(0.01, 0.2), "rows of V, which calibrate and select: below 1 a share, from 2 a count", low=1e-6)
    draw: str = tunable(STRATIFIED, Choice((FIRST, STRATIFIED)), "which rows are A: the first on disk, or each class by its share")
    hub: str = tunable("tanganke/stl10", Text(), "name on the hub", only_if={"path": ("",)})
    revision: str = tunable("49ae7f94508f7feae62baf836db284306eab0b0f", Text(), "commit, tag or branch of it", only_if={"path": ("",)})
    unlabelled: bool = tunable(False, Choice((False, True)), "whether the 100,000 pictures without labels join U")

    @property
    def classes(self) -> int:
        return len(LABELS)

    @property
    def shape(self) -> Shape:
        return Shape(96, fixed=True)

    @property
    def joins_more(self) -> bool:
        return self.unlabelled
