"""CUB-200-2011: 11,788 photographs of birds of 200 species; 5,994 to train on, 5,794 to test.

Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001, Caltech, 2011,
https://www.vision.caltech.edu/datasets/cub_200_2011/. Terms: non-commercial research and teaching. On the hub: Donghyun99/CUB-200-2011,
columns image and label, splits train and test (no revision of it could be seen, so it is the newest: name one in what is to be
published). Test is the official test split, which Chandrasegaran et al. call validation and report on; V is drawn from train. A
picture is the middle of it: at 224 pixels the shorter side is 256. Departure: training starts from that square too (see imagenet).
Rows are sorted by class, so A is drawn; by default it is everything but V. Channel means and deviations: those of ImageNet,
since networks come from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from search_spaces import Choice, IntUniform, Text, Uniform, tunable
from trainables.partition import FIRST, STRATIFIED
from trainables.pictures import Shape
from trainables.pictureset import Facts, PictureSet
from trainables.source import Scaling


@dataclass(frozen=True)
class Cub200(PictureSet):
    """Test is the official test split. Classes of a folder are in the order of their names, which start with their numbers."""

    facts: ClassVar[Facts] = Facts(
        picture="image",
        splits={"train": ("train",), "test": ("test",)},
        rows={"train": 5_994, "test": 5_794},
        scaling=Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    )

    labelled: float = tunable(
        1.0, Uniform(0.05, 1.0), "rows of A, which train the teacher: below 1 a share of the training split, 1 all that V leaves, from 2 a count",
        low=1e-6,
    )  # fmt: skip
    validation: float = tunable(0.1, Uniform(0.02, 0.2), "rows of V, which calibrate and select: below 1 a share, from 2 a count", low=1e-6)
    draw: str = tunable(STRATIFIED, Choice((FIRST, STRATIFIED)), "which rows are A: the first on disk, or each class by its share")
    hub: str = tunable("Donghyun99/CUB-200-2011", Text(), "name on the hub", only_if={"path": ("",)})
    size: int = tunable(224, IntUniform(64, 448), "side of the squares, in pixels", low=8, high=1024)

    @property
    def classes(self) -> int:
        return 200

    @property
    def shape(self) -> Shape:
        return Shape(self.size, fixed=False, margin=8 / 7)
